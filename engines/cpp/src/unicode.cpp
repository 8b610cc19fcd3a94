#include "unicode.h"

#include <algorithm>
#include <iterator>

namespace elastic {

std::size_t invalid_utf8(std::string_view text) {
  // Well-formed sequences, Unicode 15 table 3-7: (first byte from, to, length, second byte from, to).
  static constexpr unsigned char kForms[][5] = {
      {0x00, 0x7F, 1, 0, 0},       {0xC2, 0xDF, 2, 0x80, 0xBF}, {0xE0, 0xE0, 3, 0xA0, 0xBF},
      {0xE1, 0xEC, 3, 0x80, 0xBF}, {0xED, 0xED, 3, 0x80, 0x9F}, {0xEE, 0xEF, 3, 0x80, 0xBF},
      {0xF0, 0xF0, 4, 0x90, 0xBF}, {0xF1, 0xF3, 4, 0x80, 0xBF}, {0xF4, 0xF4, 4, 0x80, 0x8F}};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const auto* form = std::find_if(std::begin(kForms), std::end(kForms),
                                    [&](const auto& f) { return byte(i) >= f[0] && byte(i) <= f[1]; });
    if (form == std::end(kForms) || text.size() - i < (*form)[2]) return i;
    if ((*form)[2] > 1 && (byte(i + 1) < (*form)[3] || byte(i + 1) > (*form)[4])) return i;
    for (std::size_t k = 2; k < (*form)[2]; ++k) {
      if ((byte(i + k) & 0xC0) != 0x80) return i;
    }
    i += (*form)[2];
  }
  return std::string_view::npos;
}

std::size_t code_points(std::string_view text) {
  std::size_t count = 0;
  for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  return count;
}

char32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at++]);
  const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
  char32_t point = more == 0 ? lead : lead & (0x3Fu >> more);
  std::size_t end = at;
  for (int k = 0; k < more; ++k, ++end) {
    const auto byte = end < text.size() ? static_cast<unsigned char>(text[end]) : 0u;
    if ((byte & 0xC0u) != 0x80u) return lead;
    point = (point << 6) | (byte & 0x3Fu);
  }
  at = end;
  return point;
}

}  // namespace elastic
