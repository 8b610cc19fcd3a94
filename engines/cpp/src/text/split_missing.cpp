// Stands in for split_pcre2.cpp in a library without PCRE2.
#include "elastic_runtime/error.h"
#include "text/split_pattern.h"

namespace elastic {

struct SplitPattern::Compiled {};

SplitPattern::SplitPattern(const std::string&, const std::string& where) {
  throw UnavailableError(where, "a library built with PCRE2, which text needs", "one without",
                         "install libpcre2-dev and build again, or pass token ids instead of text");
}
SplitPattern::~SplitPattern() = default;
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;

void SplitPattern::split(std::string_view, const std::function<void(std::string_view)>&) const {}

}  // namespace elastic
