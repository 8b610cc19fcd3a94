#include <algorithm>
#include <utility>

#include "elastic_runtime/error.h"
#include "elastic_runtime/generate.h"
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

TextStream::TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) throw InputError("stop string", "at least one character", "none");
  }
}

std::string TextStream::push(std::string_view bytes) {
  if (stopped_) return {};
  bytes_ += bytes;
  text_ += take_whole(false);
  return cut_at_stop();
}

std::string TextStream::finish() {
  if (stopped_) return {};
  text_ += take_whole(true);
  std::string rest = cut_at_stop();
  return stopped_ ? rest : rest + std::exchange(text_, {});
}

/// Moves whole sequences out of `bytes_`; at the end, what is unfinished becomes U+FFFD too.
std::string TextStream::take_whole(bool at_end) {
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

std::string TextStream::cut_at_stop() {
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, text_.find(stop));
  stopped_ = first != std::string::npos;
  const std::size_t certain = stopped_ ? first : text_.size() - held_back();
  std::string result = text_.substr(0, certain);
  text_.erase(0, certain);
  return result;
}

/// Bytes at the end of `text_` that may be the start of a stop string.
std::size_t TextStream::held_back() const {
  std::size_t held = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t size = std::min(stop.size() - 1, text_.size()); size > held; --size) {
      if (text_.compare(text_.size() - size, size, stop, 0, size) == 0) held = size;
    }
  }
  return held;
}

}  // namespace elastic
