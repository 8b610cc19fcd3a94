// Whole characters out of bytes that arrive in pieces.
#pragma once

#include <string>
#include <string_view>

namespace elastic {

class Utf8Stream {
 public:
  /// Takes bytes and gives the characters that are whole. Bytes that are no UTF-8 become U+FFFD, one for each
  /// longest beginning of a sequence.
  std::string push(std::string_view bytes);

  /// What is left, U+FFFD for an unfinished character.
  std::string finish();

 private:
  std::string take(bool at_end);

  std::string bytes_;
};

}  // namespace elastic
