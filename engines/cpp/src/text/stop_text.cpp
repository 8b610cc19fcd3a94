#include <algorithm>
#include <utility>

#include "elastic_runtime/error.h"
#include "elastic_runtime/generate.h"

namespace elastic {

StopText::StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) throw InputError("stop string", "at least one character", "none");
  }
}

std::string StopText::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  stopped_ = first != std::string::npos;
  const std::size_t certain = stopped_ ? first : held_.size() - overlap();
  std::string passed = held_.substr(0, certain);
  held_.erase(0, certain);
  return passed;
}

std::string StopText::finish() { return stopped_ ? std::string() : std::exchange(held_, {}); }

/// Bytes at the end of `held_` that may be the start of a stop string.
std::size_t StopText::overlap() const {
  std::size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t size = std::min(stop.size() - 1, held_.size()); size > longest; --size) {
      if (held_.compare(held_.size() - size, size, stop, 0, size) == 0) longest = size;
    }
  }
  return longest;
}

}  // namespace elastic
