// Values in the words of Python's repr, so that an error reads the same in both languages.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <iterator>

#include "elastic_runtime/json.h"

namespace elastic {
namespace {

constexpr std::size_t kShown = 60;

/// The code point at `at`, which moves behind it. A byte that starts no whole sequence stands for itself.
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

/// Python's `text.encode("unicode_escape")`.
std::string unicode_escape(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t point = next_code_point(text, at);
    if (point == '\\') {
      result += "\\\\";
    } else if (point >= 32 && point < 127) {
      result += static_cast<char>(point);
    } else {
      result += escaped(point);
    }
  }
  return result;
}

std::string shorten(std::string text) {
  return text.size() <= kShown ? text : text.substr(0, kShown - 3) + "...";
}

/// Python's repr of a float: the shortest digits that read back equal; exponent form below 1e-4 and from 1e16
/// on.
std::string repr_float(double value) {
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  const auto e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  if (exponent < -4 || exponent >= 16) return text;
  const std::string sign = text[0] == '-' ? "-" : "";
  std::string digits = text.substr(sign.size(), e - sign.size());
  if (digits.size() > 1) digits.erase(1, 1);  // the point
  if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string repr_list(const Array& items) {
  std::string text = "[";
  for (const Value& item : items) {
    if (text.size() > 4 * kShown) break;  // an error shows the beginning only
    text += (text.size() > 1 ? ", " : "") + repr(item);
  }
  return text + "]";
}

std::string repr_object(const Object& members) {
  std::string text = "{";
  for (const Member& member : members) {
    if (text.size() > 4 * kShown) break;
    text += (text.size() > 1 ? ", " : "") + repr(member.key) + ": " + repr(member.value);
  }
  return text + "}";
}

}  // namespace

std::size_t code_points(std::string_view text) {
  std::size_t count = 0;
  for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  return count;
}

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

std::string repr(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string result(1, quote);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t start = at;
    const char32_t point = next_code_point(text, at);
    if (point == '\\' || point == static_cast<unsigned char>(quote)) {
      result += '\\';
      result += static_cast<char>(point);
    } else if (!is_printable(point)) {
      result += escaped(point);
    } else {
      result += text.substr(start, at - start);
    }
  }
  return result + quote;
}

std::string repr(const Value& value) {
  if (const auto* truth = value.get<bool>()) return *truth ? "True" : "False";
  if (const auto* number = value.get<std::int64_t>()) return std::to_string(*number);
  if (const auto* number = value.get<double>()) return repr_float(*number);
  if (const auto* text = value.get<std::string>()) return repr(*text);
  if (const auto* items = value.get<Array>()) return repr_list(*items);
  if (const auto* members = value.get<Object>()) return repr_object(*members);
  return "None";
}

std::string show(std::string_view text) { return shorten(unicode_escape(text)); }

std::string show(const Value& value) {
  const auto* text = value.get<std::string>();
  return text ? show(std::string_view(*text)) : show(std::string_view(repr(value)));
}

std::string json_type(const Value& value) {
  if (const auto* items = value.get<Array>()) return "a list of " + std::to_string(items->size());
  if (value.get<Object>()) return "an object";
  if (const auto* text = value.get<std::string>()) {
    std::size_t at = 0;
    for (int points = 0; points < 60 && at < text->size(); ++points) next_code_point(*text, at);
    return "the text " + repr(std::string_view(*text).substr(0, at));
  }
  if (const auto* truth = value.get<bool>()) return *truth ? "true" : "false";
  return value.is_null() ? "null" : repr(value);
}

}  // namespace elastic
