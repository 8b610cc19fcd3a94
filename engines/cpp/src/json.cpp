#include "elastic_runtime/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "elastic_runtime/error.h"
#include "files.h"

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

/// Receives the events of nlohmann's parser and builds the value; faults are thrown from here.
class Builder {
 public:
  Builder(std::string_view text, const std::string& subject, Numbers numbers)
      : text_(text), subject_(subject), any_number_(numbers == Numbers::kAny) {}

  Value take() { return std::move(root_); }

  bool null() { return put(Value(nullptr)); }
  bool boolean(bool value) { return put(Value(value)); }
  bool number_integer(std::int64_t value) { return put(Value(value)); }
  bool number_unsigned(std::uint64_t value) {
    if (value > static_cast<std::uint64_t>(INT64_MAX)) {
      if (any_number_) return put(Value(static_cast<double>(value)));
      fail_integer(std::to_string(value));
    }
    return put(Value(static_cast<std::int64_t>(value)));
  }
  bool number_float(double value, const std::string& text) {
    if (!any_number_ && text.find_first_of(".eE") == std::string::npos)
      fail_integer(text);  // the parser's way out of 64 bits
    return put(Value(value));
  }
  bool string(std::string& value) { return put(Value(std::move(value))); }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(Value(Object{})); }
  bool start_array(std::size_t) { return open(Value(Array{})); }
  bool key(std::string& key) {
    keys_.back() = std::move(key);
    return true;
  }
  bool end_object() {
    check_unique(*stack_.back().get<Object>());
    return close();
  }
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

  void check_unique(const Object& object) const {
    std::unordered_set<std::string_view> seen;
    for (const Member& member : object) {
      if (!seen.insert(member.key).second) {
        throw InputError(subject_, "every key once in an object",
                         "the key " + repr(member.key.substr(0, 60)) + " twice");
      }
    }
  }

  bool open(Value value) {
    if (stack_.size() == kMaxDepth) {
      throw InputError(subject_, "JSON of moderate depth", "values nested too deeply");
    }
    stack_.push_back(std::move(value));
    keys_.emplace_back();
    return true;
  }

  bool close() {
    Value value = std::move(stack_.back());
    stack_.pop_back();
    keys_.pop_back();
    return put(std::move(value));
  }

  bool put(Value value) {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (auto* array = stack_.back().get<Array>()) {
      array->push_back(std::move(value));
    } else {
      stack_.back().get<Object>()->push_back({std::move(keys_.back()), std::move(value)});
    }
    return true;
  }

  std::string_view text_;
  const std::string& subject_;
  bool any_number_;
  Value root_;
  std::vector<Value> stack_;       // the open arrays and objects
  std::vector<std::string> keys_;  // of each of them, the key whose value comes next
};

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

const Value* Value::find(std::string_view key) const {
  const auto* object = get<Object>();
  if (!object) return nullptr;
  const auto found =
      std::find_if(object->begin(), object->end(), [&](const Member& m) { return m.key == key; });
  return found == object->end() ? nullptr : &found->value;
}

Value parse_json(std::string_view text, const std::string& subject, Numbers numbers) {
  check_text(text, subject);
  Builder builder(text, subject, numbers);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  Value value = builder.take();
  if (!value.get<Object>()) throw InputError(subject, "a JSON object", json_type(value));
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

}  // namespace elastic
