// The pattern by which a text is cut into pieces before byte pairs are merged. Needs PCRE2.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace elastic {

/// A pattern of the `tokenizers` library, which Oniguruma reads, in PCRE2's syntax. Only what means the same
/// in both passes: general categories, classes, groups, look-ahead, greedy, lazy and possessive repeats.
/// Throws InputError about `where` for the rest.
std::string pcre2_syntax(const std::string& pattern, const std::string& where);

class SplitPattern {
 public:
  /// Throws InputError about `where`: a syntax that is not read, a pattern that matches nothing at all.
  /// UnavailableError: built without PCRE2.
  SplitPattern(const std::string& pattern, const std::string& where);
  ~SplitPattern();
  SplitPattern(SplitPattern&&) noexcept;

  /// Calls `piece` with every match, and with what lies between them, in order.
  void split(std::string_view text, const std::function<void(std::string_view)>& piece) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace elastic
