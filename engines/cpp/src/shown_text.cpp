// Text of others in error messages: it must not steer a terminal, and a long one is cut short.
#include <algorithm>
#include <cstdio>
#include <iterator>

#include "elastic_runtime/error.h"
#include "unicode.h"

namespace elastic {
namespace {

constexpr std::size_t kShown = 60;

/// Signs that show nothing or change what is shown around them: controls, spaces other than the plain one,
/// marks of writing direction, private and unassigned special points.
bool is_printable(char32_t point) {
  static constexpr struct {
    char32_t first, last;
  } kHidden[] = {{0x00, 0x1F},     {0x7F, 0xA0},     {0xAD, 0xAD},       {0x600, 0x605},     {0x61C, 0x61C},
                 {0x6DD, 0x6DD},   {0x70F, 0x70F},   {0x1680, 0x1680},   {0x180E, 0x180E},   {0x2000, 0x200F},
                 {0x2028, 0x202F}, {0x205F, 0x206F}, {0x3000, 0x3000},   {0xD800, 0xF8FF},   {0xFEFF, 0xFEFF},
                 {0xFFF0, 0xFFFB}, {0xFFFE, 0xFFFF}, {0x1D173, 0x1D17A}, {0xE0000, 0x1FFFFF}};
  return std::none_of(std::begin(kHidden), std::end(kHidden),
                      [&](const auto& range) { return point >= range.first && point <= range.last; });
}

std::string escaped(char32_t point) {
  if (point == '\n') return "\\n";
  if (point == '\r') return "\\r";
  if (point == '\t') return "\\t";
  char buffer[16];
  const char* format = point < 0x100 ? "\\x%02x" : point < 0x10000 ? "\\u%04x" : "\\U%08x";
  std::snprintf(buffer, sizeof buffer, format, static_cast<unsigned>(point));
  return buffer;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t start = at;
    const char32_t point = next_code_point(text, at);
    if (point == '\n' || is_printable(point)) {
      result += text.substr(start, at - start);
    } else {
      result += escaped(point);
    }
  }
  return result;
}

std::string in_quotes(std::string_view text) {
  std::string result = "'";
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t start = at;
    const char32_t point = next_code_point(text, at);
    if (point == '\'' || point == '\\') result += '\\';
    result += is_printable(point) ? std::string(text.substr(start, at - start)) : escaped(point);
  }
  return result + "'";
}

std::string show(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t point = next_code_point(text, at);
    if (point == '\\') {
      result += "\\\\";
    } else if (point < 32 || point > 126) {
      result += escaped(point);
    } else {
      result += static_cast<char>(point);
    }
    if (result.size() > kShown) return result.substr(0, kShown - 3) + "...";
  }
  return result;
}

}  // namespace elastic
