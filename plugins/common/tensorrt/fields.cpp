#include "fields.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace elastic::trt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

bool is(const char* name, const char* other) { return name && std::strcmp(name, other) == 0; }

}  // namespace

Fields::Fields(const char* op, const nvinfer1::PluginFieldCollection* fields, const std::vector<const char*>& names)
    : op_(op), fields_(fields) {
  if (!fields) throw Refusal(op, "attributes", "a field collection", "null");
  for (int32_t i = 0; i < fields->nbFields; ++i) {
    const char* name = fields->fields[i].name;
    const auto same = [&](const char* known) { return is(name, known); };
    if (same("plugin_version") || same("plugin_namespace") || std::any_of(names.begin(), names.end(), same)) continue;
    std::string all;
    for (const char* known : names) all += (all.empty() ? "" : ", ") + std::string(known);
    throw Refusal(op, "attributes", all, name ? name : "one without a name");
  }
}

void Fields::read(const char* name, int32_t& member, AtMost rule) const {
  const PluginField& field = required(name);
  check(field, PluginFieldType::kINT32, "int32");
  std::memcpy(&member, field.data, sizeof member);
  if (member < 1 || member > rule.most) refuse(name, "1 to " + std::to_string(rule.most), std::to_string(member));
}

void Fields::read(const char* name, float& member, Given) const { member = read_float(required(name)); }

void Fields::read(const char* name, float& member, Optional) const {
  if (const PluginField* field = find(name)) member = read_float(*field);
}

void Fields::refuse(const char* name, const std::string& expected, const std::string& found) const {
  throw Refusal(op_, std::string("attribute ") + name, expected, found);
}

const PluginField* Fields::find(const char* name) const {
  for (int32_t i = 0; i < fields_->nbFields; ++i)
    if (is(fields_->fields[i].name, name)) return &fields_->fields[i];
  return nullptr;
}

const PluginField& Fields::required(const char* name) const {
  if (const PluginField* field = find(name)) return *field;
  refuse(name, "a value", "none");
}

void Fields::check(const PluginField& field, PluginFieldType type, const char* type_text) const {
  if (field.type != type)
    refuse(field.name, type_text, "field type " + std::to_string(static_cast<int>(field.type)));
  if (field.length != 1 || !field.data) refuse(field.name, "one value", std::to_string(field.length));
}

float Fields::read_float(const PluginField& field) const {
  check(field, PluginFieldType::kFLOAT32, "float32");
  float value;
  std::memcpy(&value, field.data, sizeof value);
  if (std::isnan(value)) refuse(field.name, "a number", "NaN");
  return value;
}

}  // namespace elastic::trt
