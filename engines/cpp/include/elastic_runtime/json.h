// Strict JSON: what we read was written by others, so nothing in it is taken on trust.
//
// Errors beside the grammar's own: a key twice in an object, integers outside of 64 bits, numbers that
// overflow, text that is no UTF-8 (lone surrogates included), a byte order mark, values nested more than 200
// deep, files above a limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace elastic {

class Value;
struct Member;
using Array = std::vector<Value>;
using Object = std::vector<Member>;  ///< in the order of the file; keys are unique

/// A parsed JSON value.
class Value {
 public:
  using Data = std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, Array, Object>;

  Value() = default;
  template <typename T>
  explicit Value(T data) : data_(std::move(data)) {}

  template <typename T>
  const T* get() const {
    return std::get_if<T>(&data_);
  }
  template <typename T>
  T* get() {
    return std::get_if<T>(&data_);
  }
  bool is_null() const { return std::holds_alternative<std::nullptr_t>(data_); }

  /// The member of an object; nullptr where there is none or this is no object.
  const Value* find(std::string_view key) const;

 private:
  Data data_ = nullptr;
};

struct Member {
  std::string key;
  Value value;
};

inline constexpr std::size_t kJsonLimit = std::size_t{64}
                                          << 20;  ///< bytes of the largest file read by default

/// How large an integer may be. Our own formats count in 64 bits; Hugging Face's tools write 1e30 in full, for
/// "no length known", and with kAny such a number becomes a double.
enum class Numbers { kBounded, kAny };

/// The object that JSON text holds. Throws InputError about `subject`.
Value parse_json(std::string_view text, const std::string& subject, Numbers numbers = Numbers::kBounded);

/// The object a JSON file holds. Throws InputError: no such file, unreadable, larger than `limit`, no strict
/// JSON.
Value read_json(const std::filesystem::path& path, std::size_t limit = kJsonLimit,
                Numbers numbers = Numbers::kBounded);

/// Offset of the first byte that starts no UTF-8 sequence, or npos when all of `text` is UTF-8.
std::size_t invalid_utf8(std::string_view text);

/// Characters of UTF-8 text.
std::size_t code_points(std::string_view text);

/// A value as Python's repr writes it: errors of both languages read alike.
std::string repr(const Value& value);
std::string repr(std::string_view text);

/// Text for a terminal: whatever is no visible sign or plain space, line breaks aside, is escaped as Python's
/// `ascii` does. Names out of a hostile file must not steer it.
std::string printable(std::string_view text);

/// A short, ASCII-only form for an error message, of at most 60 characters.
std::string show(const Value& value);
std::string show(std::string_view text);

/// What a JSON value is, in the words of an error: `a list of 3`, `the text 'x'`, `true`, `5`.
std::string json_type(const Value& value);

}  // namespace elastic
