// Which patterns mean the same to Oniguruma and to PCRE2, and how the second writes them.
#include <cctype>
#include <cstring>

#include "elastic_runtime/error.h"
#include "text/split_pattern.h"

namespace elastic {
namespace {

/// Reads a pattern from left to right.
class Translator {
 public:
  Translator(const std::string& pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  std::string translate() {
    while (at_ < pattern_.size()) {
      const char sign = pattern_[at_];
      if (sign == '\\') {
        escape();
      } else if (sign == '[') {
        character_class();
      } else if (sign == '(') {
        group();
      } else if (sign == '{') {
        count();
      } else if (sign == '^' || sign == '$') {
        refuse();  // of a line to one, of a text to the other
      } else {
        take(1);
      }
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse() const {
    throw InputError(where_, "a pattern whose syntax is read here",
                     in_quotes(show(pattern_.substr(at_, 12))) + " at " + std::to_string(at_),
                     "pass token ids instead of text");
  }

  bool follows(std::string_view text) const { return pattern_.compare(at_, text.size(), text) == 0; }

  void take(std::size_t count) {
    result_ += pattern_.substr(at_, count);
    at_ += count;
  }

  void put(const char* instead, std::size_t count) {
    result_ += instead;
    at_ += count;
  }

  /// Spaces are those of Unicode to Oniguruma; PCRE2's \s has one more, U+180E.
  void escape() {
    const char sign = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    if (sign == 's') return put("\\p{White_Space}", 2);
    if (sign == 'S') return put("\\P{White_Space}", 2);
    if (sign == 'd') return put("\\p{Nd}", 2);
    if (sign == 'D') return put("\\P{Nd}", 2);
    if (sign == 'p' || sign == 'P') return property();
    const bool is_letter = std::strchr("rnt", sign) != nullptr;
    if (sign == '\0' || !(is_letter || std::ispunct(static_cast<unsigned char>(sign)))) refuse();
    take(2);
  }

  /// A general category: other properties have other names, or other members.
  void property() {
    const std::size_t end = pattern_.find('}', at_);
    const std::string_view name = std::string_view(pattern_).substr(at_, end - at_);
    const bool is_category = name.size() >= 4 && name.size() <= 5 && name[2] == '{' &&
                             std::strchr("CLMNPSZ", name[3]) &&
                             (name.size() == 4 || std::strchr("acdefiklmnopstu", name[4]));
    if (end == std::string::npos || !is_category) refuse();
    take(name.size() + 1);
  }

  void character_class() {
    take(follows("[^") ? 2 : 1);
    if (follows("]")) refuse();  // empty to one, a bracket to the other
    while (!follows("]")) {
      if (at_ == pattern_.size() || follows("[") || follows("&&"))
        refuse();  // classes in classes, and their meet
      if (follows("\\")) {
        escape();
      } else {
        take(1);
      }
    }
    take(1);
  }

  void group() {
    for (const std::string_view kind : {"(?:", "(?i:", "(?=", "(?!", "(?>"}) {
      if (follows(kind)) return take(kind.size());
    }
    if (follows("(?") || follows("(*")) refuse();
    take(1);
  }

  /// `{n}`, `{n,}` or `{n,m}`, and nothing behind it that makes it lazy or possessive to one of both.
  void count() {
    std::size_t end = at_ + 1;
    while (end < pattern_.size() && std::isdigit(static_cast<unsigned char>(pattern_[end]))) ++end;
    if (end == at_ + 1) refuse();
    if (end < pattern_.size() && pattern_[end] == ',') ++end;
    while (end < pattern_.size() && std::isdigit(static_cast<unsigned char>(pattern_[end]))) ++end;
    if (end >= pattern_.size() || pattern_[end] != '}') refuse();
    if (end + 1 < pattern_.size() && std::strchr("?+", pattern_[end + 1])) refuse();
    take(end + 1 - at_);
  }

  const std::string& pattern_;
  const std::string& where_;
  std::string result_;
  std::size_t at_ = 0;
};

}  // namespace

std::string pcre2_syntax(const std::string& pattern, const std::string& where) {
  return Translator(pattern, where).translate();
}

}  // namespace elastic
