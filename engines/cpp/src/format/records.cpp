#include "format/records.h"

#include <algorithm>

#include "elastic_runtime/error.h"

namespace elastic {

std::string Where::text() const {
  switch (kind_) {
    case Kind::kRoot:
      return std::string(name_);
    case Kind::kField:
      return parent_->text() + "." + std::string(name_);
    case Kind::kItem:
      return parent_->text() + "[" + std::to_string(index_) + "]";
    case Kind::kNote:
      return parent_->text() + ": " + std::string(name_);
    case Kind::kKey:
      return parent_->text() + "[" + in_quotes(show(name_)) + "]";
  }
  return {};
}

Fields::Fields(const Value& value, const Where& where, std::initializer_list<std::string_view> names,
               std::initializer_list<std::string_view> optional, Others others)
    : value_(value), where_(where) {
  const Object& members = as_object(value, where);
  for (const std::string_view name : names) {
    if (!find(value, name)) throw InputError(where.text(), "the field " + in_quotes(name), "no such field");
  }
  if (others == Others::kAllowed) return;
  std::vector<std::string_view> all = names;
  all.insert(all.end(), optional.begin(), optional.end());
  for (const auto& [key, ignored] : members) {
    if (std::find(all.begin(), all.end(), key) != all.end()) continue;
    std::string known;
    for (const std::string_view name : all) known += (known.empty() ? "" : ", ") + std::string(name);
    throw InputError(where.text(), "only the fields " + known, in_quotes(show(key)) + " as well");
  }
}

std::int64_t Fields::integer(std::string_view name) const { return as_integer((*this)[name], where(name)); }

std::string Fields::text(std::string_view name) const { return as_text((*this)[name], where(name)); }

std::optional<std::string> Fields::optional_text(std::string_view name) const {
  return optional(name, as_text);
}

bool Fields::truth(std::string_view name) const { return as_truth((*this)[name], where(name)); }

std::string Fields::choice(std::string_view name, std::initializer_list<std::string_view> choices) const {
  return as_choice((*this)[name], where(name), choices);
}

void fail_mismatch(const Where& where, const std::string& expected, const Value& value) {
  throw InputError(where.text(), expected, show_value(value));
}

std::int64_t as_integer(const Value& value, const Where& where) {
  const std::int64_t* number = if_integer(value);
  if (number && *number >= 0 && *number <= kMaxInt) return *number;
  fail_mismatch(where, "an integer from 0 to " + std::to_string(kMaxInt), value);
}

std::string as_text(const Value& value, const Where& where) {
  if (const std::string* text = if_text(value)) return *text;
  fail_mismatch(where, "text", value);
}

bool as_truth(const Value& value, const Where& where) {
  if (const bool* truth = if_truth(value)) return *truth;
  fail_mismatch(where, "true or false", value);
}

std::string as_choice(const Value& value, const Where& where, const std::vector<std::string_view>& choices) {
  const std::string* text = if_text(value);
  if (text && std::find(choices.begin(), choices.end(), *text) != choices.end()) return *text;
  std::string expected;
  for (const std::string_view choice : choices)
    expected += (expected.empty() ? "" : " or ") + in_quotes(choice);
  fail_mismatch(where, expected, value);
}

const Array& as_array(const Value& value, const Where& where) {
  if (const Array* items = if_array(value)) return *items;
  fail_mismatch(where, "an array", value);
}

const Object& as_object(const Value& value, const Where& where) {
  if (const Object* members = if_object(value)) return *members;
  fail_mismatch(where, "an object", value);
}

}  // namespace elastic
