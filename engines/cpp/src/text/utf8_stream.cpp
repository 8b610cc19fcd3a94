#include "text/utf8_stream.h"

#include <algorithm>

#include "unicode.h"

namespace elastic {
namespace {

/// Whether the bytes are the start of a sequence that only lacks its end.
bool is_unfinished(std::string_view bytes) {
  // The shortest ends that fit some sequence of each kind.
  for (const char* end : {"\x80", "\x80\x80", "\xA0\x80", "\x80\x80\x80", "\x90\x80\x80"}) {
    if (invalid_utf8(std::string(bytes) + end) == std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  bytes_ += bytes;
  return take(false);
}

std::string Utf8Stream::finish() { return take(true); }

std::string Utf8Stream::take(bool at_end) {
  std::string whole;
  for (;;) {
    const std::size_t bad = std::min(invalid_utf8(bytes_), bytes_.size());
    whole += bytes_.substr(0, bad);
    bytes_.erase(0, bad);
    if (bytes_.empty()) return whole;
    std::size_t length = 1;  // of the longest start of a sequence, which is what one U+FFFD replaces
    while (length < bytes_.size() && length < 3 &&
           is_unfinished(std::string_view(bytes_).substr(0, length + 1)))
      ++length;
    if (!at_end && length == bytes_.size() && is_unfinished(bytes_)) return whole;
    whole += "\xEF\xBF\xBD";
    bytes_.erase(0, length);
  }
}

}  // namespace elastic
