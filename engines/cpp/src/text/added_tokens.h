// Where added tokens stand in a text.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace elastic {

/// Finds tokens in a text: of those that begin at one place the longest, from left to right.
class TokenFinder {
 public:
  void add(const std::string& content, std::int64_t id);

  /// Calls `text` with what lies between the tokens and `token` with each of them, in order.
  void split(std::string_view text, const std::function<void(std::string_view)>& between,
             const std::function<void(std::int64_t)>& token) const;

 private:
  using Entry = std::pair<std::string, std::int64_t>;
  const Entry* at(std::string_view rest) const;

  std::array<std::vector<Entry>, 256> by_first_byte_;  // the longest first
};

}  // namespace elastic
