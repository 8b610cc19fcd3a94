// Values in the words of Python's repr, so that an error reads the same in both languages.
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "elastic_runtime/json.h"

namespace elastic {
namespace {

constexpr std::size_t kShown = 60;

/// The code point at `at`, which moves behind it. `text` is UTF-8; a stray byte stands for itself.
char32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at++]);
  const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
  char32_t point = more == 0 ? lead : lead & (0x3Fu >> more);
  for (int k = 0; k < more && at < text.size(); ++k)
    point = (point << 6) | (static_cast<unsigned char>(text[at++]) & 0x3Fu);
  return point;
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
    } else if (point < 32 || (point >= 127 && point <= 0xA0) || point == 0xAD) {
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
