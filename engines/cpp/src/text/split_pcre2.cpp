// Splitting by PCRE2 with Unicode properties.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "elastic_runtime/error.h"
#include "text/split_pattern.h"

namespace elastic {
namespace {

constexpr char kIds[] = "pass token ids instead of text";

struct FreePattern {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
template <typename T>
using OwnedPattern = std::unique_ptr<T, FreePattern>;

PCRE2_SPTR units_of(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::string message_of(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

/// The next match at or behind `start`; its places are in `data`.
bool find_match(const pcre2_code* code, std::string_view text, std::size_t start, pcre2_match_data* data) {
  int found = pcre2_match(code, units_of(text), text.size(), start, PCRE2_NO_UTF_CHECK, data, nullptr);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter has the heap
    found = pcre2_match(code, units_of(text), text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data,
                        nullptr);
  }
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) throw InputError("text", "what the tokenizer's pattern can split", message_of(found), kIds);
  return true;
}

}  // namespace

struct SplitPattern::Compiled {
  OwnedPattern<pcre2_code> code;
};

SplitPattern::SplitPattern(const std::string& pattern, const std::string& where)
    : compiled_(std::make_unique<Compiled>()) {
  const std::string translated = pcre2_syntax(pattern, where);
  const OwnedPattern<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // what `.` leaves out
  int error = 0;
  PCRE2_SIZE place = 0;
  compiled_->code.reset(pcre2_compile(units_of(translated), translated.size(), PCRE2_UTF | PCRE2_UCP, &error,
                                      &place, context.get()));
  if (!compiled_->code) throw InputError(where, "a pattern that PCRE2 reads", message_of(error), kIds);
  std::uint32_t empty = 0;
  pcre2_pattern_info(compiled_->code.get(), PCRE2_INFO_MATCHEMPTY, &empty);
  if (empty != 0)
    throw InputError(where, "a pattern that matches some text", "one that may match none", kIds);
  pcre2_jit_compile(compiled_->code.get(),
                    PCRE2_JIT_COMPLETE);  // only faster: a machine may have no compiler for it
}
SplitPattern::~SplitPattern() = default;
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;

void SplitPattern::split(std::string_view text, const std::function<void(std::string_view)>& piece) const {
  const OwnedPattern<pcre2_match_data> data(
      pcre2_match_data_create_from_pattern(compiled_->code.get(), nullptr));
  std::size_t done = 0;
  while (done < text.size() && find_match(compiled_->code.get(), text, done, data.get())) {
    const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data.get());
    if (found[0] > done) piece(text.substr(done, found[0] - done));
    piece(text.substr(found[0], found[1] - found[0]));
    done = found[1];
  }
  if (done < text.size()) piece(text.substr(done));
}

}  // namespace elastic
