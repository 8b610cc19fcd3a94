#include "format/json.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "elastic_runtime/error.h"
#include "files.h"
#include "unicode.h"

namespace elastic {
namespace {

constexpr std::size_t kMaxDepth = 200;  // our formats nest 7 deep; also bounds the recursion of ~Value

std::string line_and_column(std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const auto start = before.rfind('\n');
  const auto column = before.size() - (start == std::string_view::npos ? 0 : start + 1);
  return "line " + std::to_string(line) + " column " + std::to_string(std::max<std::size_t>(1, column));
}

/// Builds the value out of the events of nlohmann's parser; faults are thrown from here.
class Builder {
 public:
  Builder(std::string_view text, const std::string& subject, Numbers numbers)
      : text_(text), subject_(subject), any_number_(numbers == Numbers::kAny) {}

  Value take() { return std::move(root_); }

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(std::int64_t value) { return put(value); }
  bool number_unsigned(std::uint64_t value) {
    if (value <= static_cast<std::uint64_t>(INT64_MAX)) return put(static_cast<std::int64_t>(value));
    if (!any_number_) fail_integer(std::to_string(value));
    return put(static_cast<double>(value));
  }
  bool number_float(double value, const std::string& text) {
    // The parser's way out of 64 bits.
    if (!any_number_ && text.find_first_of(".eE") == std::string::npos) fail_integer(text);
    return put(value);
  }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(Value::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(Object{}); }
  bool start_array(std::size_t) { return open(Array{}); }
  bool key(std::string& key) {
    const auto [place, is_new] = stack_.back()->get_ptr<Object*>()->emplace(std::move(key), nullptr);
    if (!is_new) {
      throw InputError(subject_, "every key once in an object",
                       "the key " + in_quotes(place->first.substr(0, 60)) + " twice");
    }
    next_ = &place->second;
    return true;
  }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  template <typename Exception>
  bool parse_error(std::size_t position, const std::string& token, const Exception& error) {
    if (error.id == 406) throw InputError(subject_, "finite numbers", "the number " + clip(token));
    if (std::string_view(error.what()).find("surrogate") != std::string_view::npos) {
      throw InputError(subject_, "Unicode text", "a lone surrogate (\\ud800 to \\udfff)");
    }
    throw InputError(subject_, "valid JSON", "a syntax error at " + line_and_column(text_, position));
  }

 private:
  static std::string clip(const std::string& text) {
    return text.size() > 24 ? text.substr(0, 24) + "…" : text;
  }

  [[noreturn]] void fail_integer(const std::string& text) const {
    throw InputError(subject_, "integers of 64 bits", "the integer " + clip(text));
  }

  bool open(Value value) {
    if (stack_.size() == kMaxDepth) {
      throw InputError(subject_, "JSON of moderate depth", "values nested too deeply");
    }
    stack_.push_back(place(std::move(value)));
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  bool put(Value value) {
    place(std::move(value));
    return true;
  }

  /// Where the value now stands. It stays there while anything in it is open: only then its array grows.
  Value* place(Value value) {
    if (!stack_.empty() && stack_.back()->is_array()) return &stack_.back()->emplace_back(std::move(value));
    Value* target = stack_.empty() ? &root_ : next_;
    *target = std::move(value);
    return target;
  }

  std::string_view text_;
  const std::string& subject_;
  bool any_number_;
  Value root_;
  Value* next_ = nullptr;      // of the member whose key has been read
  std::vector<Value*> stack_;  // the open arrays and objects
};

/// Bytes of what stands at `at` and is no finite number: a literal, or digits that no double holds. 0:
/// neither.
std::size_t infinite_number(std::string_view text, std::size_t at) {
  for (const std::string_view literal : {"Infinity", "NaN"}) {
    if (text.compare(at, literal.size(), literal) == 0) return literal.size();
  }
  if (text[at] < '0' || text[at] > '9') return 0;
  const std::size_t size = std::min(text.find_first_not_of("0123456789.eE+-", at), text.size()) - at;
  const std::string number(text.substr(at, size));
  return std::isinf(std::strtod(number.c_str(), nullptr)) ? size : 0;
}

/// Bytes of the text or number that begins at `at`, else 1.
std::size_t token_size(std::string_view text, std::size_t at) {
  if (text[at] >= '0' && text[at] <= '9') {
    return std::min(text.find_first_not_of("0123456789.eE+-", at), text.size()) - at;
  }
  if (text[at] != '"') return 1;
  std::size_t end = at + 1;
  while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
  return std::min(end + 1, text.size()) - at;
}

/// The text with the largest double in place of numbers that no double holds: nlohmann's parser ends at one.
std::string with_finite_numbers(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t infinite = infinite_number(text, at);
    const std::size_t size = infinite ? infinite : token_size(text, at);
    result += infinite ? "1.7976931348623157e308 " : text.substr(at, size);
    at += size;
  }
  return result;
}

void check_text(std::string_view text, const std::string& subject) {
  static constexpr char kHex[] = "0123456789abcdef";
  const auto bad = invalid_utf8(text);
  if (bad != std::string_view::npos) {
    const auto byte = static_cast<unsigned char>(text[bad]);
    throw InputError(
        subject, "UTF-8 text",
        std::string("byte 0x") + kHex[byte >> 4] + kHex[byte & 15] + " at offset " + std::to_string(bad));
  }
  if (text.substr(0, 3) == "\xEF\xBB\xBF")
    throw InputError(subject, "valid JSON", "a byte order mark at line 1 column 1");
  const auto zero = text.find('\0');  // the parser would take it for the end of the text
  if (zero != std::string_view::npos) {
    throw InputError(subject, "valid JSON", "a zero byte at " + line_and_column(text, zero + 1));
  }
}

}  // namespace

const Value* find(const Value& value, std::string_view key) {
  const Object* members = if_object(value);
  if (!members) return nullptr;
  const auto found = members->find(std::string(key));
  return found == members->end() ? nullptr : &found->second;
}

std::string show_value(const Value& value) {
  if (const std::string* text = if_text(value)) return show(*text);
  return show(value.dump(-1, ' ', true, Value::error_handler_t::replace));
}

Value parse_json(std::string_view text, const std::string& subject, Numbers numbers) {
  check_text(text, subject);
  const std::string finite = numbers == Numbers::kAny ? with_finite_numbers(text) : std::string();
  const std::string_view read = numbers == Numbers::kAny ? finite : text;
  Builder builder(read, subject, numbers);
  Value::sax_parse(read.begin(), read.end(), &builder);
  Value value = builder.take();
  if (!value.is_object()) throw InputError(subject, "a JSON object", show_value(value));
  return value;
}

Value read_json(const std::filesystem::path& path, std::size_t limit, Numbers numbers) {
  const std::string name = path_text(path);
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) {
    throw InputError(name, "a JSON file",
                     std::filesystem::is_directory(path, none) ? "a folder" : "no such file");
  }
  const std::string text = read_bytes(path, limit, "a readable JSON file");
  if (text.size() > limit)
    throw InputError(name, "at most " + std::to_string(limit) + " bytes of JSON", "a larger file");
  return parse_json(text, name, numbers);
}

}  // namespace elastic
