// UTF-8 and its code points.
#pragma once

#include <cstddef>
#include <string_view>

namespace elastic {

/// Offset of the first byte that starts no UTF-8 sequence, or npos when all of `text` is UTF-8.
std::size_t invalid_utf8(std::string_view text);

/// Characters of UTF-8 text.
std::size_t code_points(std::string_view text);

/// The code point at `at`, which moves behind it. A byte that starts no whole sequence stands for itself.
char32_t next_code_point(std::string_view text, std::size_t& at);

}  // namespace elastic
