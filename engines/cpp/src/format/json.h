// Strict JSON on nlohmann's values: what we read was written by others, so nothing in it is taken on trust.
//
// Errors beside the grammar's own: a key twice in an object, integers outside of 64 bits, numbers that
// overflow, text that is no UTF-8 (lone surrogates included), a byte order mark, values nested more than 200
// deep, files above a limit. Same rules as elastic_runtime/format/jsonfile.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace elastic {

using Value = nlohmann::json;  ///< integers are signed; keys of an object come in the order of their bytes
using Array = Value::array_t;
using Object = Value::object_t;

inline constexpr std::size_t kJsonLimit = std::size_t{64}
                                          << 20;  ///< bytes of the largest file read by default

/// Which numbers are read. Our own formats count in 64 bits, and all that they measure is finite. Files of
/// Hugging Face's tools hold 1e30 in full, for "no length known", and `Infinity` for "no limit": with kAny an
/// integer outside of 64 bits becomes a double, and what no double holds, NaN too, the largest one of its
/// sign.
enum class Numbers { kBounded, kAny };

/// The object that JSON text holds. Throws InputError about `subject`.
Value parse_json(std::string_view text, const std::string& subject, Numbers numbers = Numbers::kBounded);

/// The object a JSON file holds. Throws InputError: no such file, unreadable, larger than `limit`, no strict
/// JSON.
Value read_json(const std::filesystem::path& path, std::size_t limit = kJsonLimit,
                Numbers numbers = Numbers::kBounded);

/// The member of an object; nullptr where there is none or this is no object.
const Value* find(const Value& value, std::string_view key);

/// The value where it is of that kind, else nullptr.
inline const std::string* if_text(const Value& value) { return value.get_ptr<const std::string*>(); }
inline const std::int64_t* if_integer(const Value& value) { return value.get_ptr<const std::int64_t*>(); }
inline const bool* if_truth(const Value& value) { return value.get_ptr<const bool*>(); }
inline const Array* if_array(const Value& value) { return value.get_ptr<const Array*>(); }
inline const Object* if_object(const Value& value) { return value.get_ptr<const Object*>(); }

/// A short, ASCII-only form for an error message, of at most 60 characters: a text as it is, else as JSON.
std::string show_value(const Value& value);

}  // namespace elastic
