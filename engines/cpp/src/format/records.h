// Strict reading of JSON objects: every field required unless it is said to be optional, no other allowed;
// errors name the path to the value. Private to the library; the texts are those of
// elastic_runtime/format/records.py.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/json.h"

namespace elastic {

inline constexpr std::int64_t kMaxInt = (std::int64_t{1} << 53) - 1;  ///< every JSON reader holds it exactly

/// Where in a file a value stands; the text is made only when an error needs it. Lives on the stack, below
/// its parent.
class Where {
 public:
  explicit Where(std::string_view root) : name_(root) {}
  Where field(std::string_view name) const { return Where(this, Kind::kField, name, 0); }
  Where item(std::size_t index) const { return Where(this, Kind::kItem, {}, index); }
  Where note(std::string_view note) const { return Where(this, Kind::kNote, note, 0); }
  Where key(std::string_view key) const { return Where(this, Kind::kKey, key, 0); }

  /// `root.field[3]: note['key']`
  std::string text() const;

 private:
  enum class Kind { kRoot, kField, kItem, kNote, kKey };
  Where(const Where* parent, Kind kind, std::string_view name, std::size_t index)
      : parent_(parent), kind_(kind), name_(name), index_(index) {}

  const Where* parent_ = nullptr;
  Kind kind_ = Kind::kRoot;
  std::string_view name_;
  std::size_t index_ = 0;
};

/// An object with the fields `names`, which may have those of `optional` and no other unless `others` allows
/// it.
class Fields {
 public:
  enum class Others { kRefused, kAllowed };
  Fields(const Value& value, const Where& where, std::initializer_list<std::string_view> names,
         std::initializer_list<std::string_view> optional = {}, Others others = Others::kRefused);

  std::int64_t integer(std::string_view name) const;
  std::string text(std::string_view name) const;
  std::optional<std::string> optional_text(std::string_view name) const;
  bool truth(std::string_view name) const;
  std::string choice(std::string_view name, std::initializer_list<std::string_view> choices) const;

  const Value& operator[](std::string_view name) const { return *find(value_, name); }
  Where where(std::string_view name) const { return where_.field(name); }

  /// `read(value, where)` of the field.
  template <typename Read>
  auto read(std::string_view name, Read&& read) const {
    return read((*this)[name], where(name));
  }

  /// The same, nullopt for null and for a field that is absent.
  template <typename Read>
  auto optional(std::string_view name, Read&& read) const {
    using Result = std::optional<decltype(read(value_, where(name)))>;
    const Value* value = find(value_, name);
    return !value || value->is_null() ? Result() : Result(read(*value, where(name)));
  }

  /// `read` of every item of an array.
  template <typename Read>
  auto list(std::string_view name, Read&& read) const;

 private:
  const Value& value_;
  const Where& where_;
};

[[noreturn]] void fail_mismatch(const Where& where, const std::string& expected, const Value& value);

std::int64_t as_integer(const Value& value, const Where& where);
std::string as_text(const Value& value, const Where& where);
bool as_truth(const Value& value, const Where& where);
std::string as_choice(const Value& value, const Where& where, const std::vector<std::string_view>& choices);
const Array& as_array(const Value& value, const Where& where);
const Object& as_object(const Value& value, const Where& where);

/// `read(item, where)` of every item of an array.
template <typename Read>
auto as_list(const Value& value, const Where& where, Read&& read) {
  std::vector<decltype(read(value, where))> result;
  const Array& items = as_array(value, where);
  result.reserve(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) result.push_back(read(items[i], where.item(i)));
  return result;
}

template <typename Read>
auto Fields::list(std::string_view name, Read&& read) const {
  return as_list((*this)[name], where(name), read);
}

}  // namespace elastic
