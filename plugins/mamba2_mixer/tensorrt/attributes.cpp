#include "attributes.h"

#include <cmath>
#include <cstring>

#include "../limits.h"

namespace elastic::mamba2::trt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

std::string type_name(PluginFieldType type) { return "field type " + std::to_string(static_cast<int>(type)); }

const PluginField* find(const nvinfer1::PluginFieldCollection& fields, const char* name) {
  for (int32_t i = 0; i < fields.nbFields; ++i)
    if (fields.fields[i].name && std::strcmp(fields.fields[i].name, name) == 0) return &fields.fields[i];
  return nullptr;
}

void check_field(const PluginField& field, PluginFieldType type, const char* type_text) {
  if (field.type != type) throw Refusal(std::string("attribute ") + field.name, type_text, type_name(field.type));
  if (field.length != 1 || !field.data)
    throw Refusal(std::string("attribute ") + field.name, "one value", std::to_string(field.length));
}

const PluginField& required(const nvinfer1::PluginFieldCollection& fields, const char* name) {
  if (const PluginField* field = find(fields, name)) return *field;
  throw Refusal(std::string("attribute ") + name, "a value", "none");
}

int32_t read_int(const nvinfer1::PluginFieldCollection& fields, const char* name, int32_t most) {
  const PluginField& field = required(fields, name);
  check_field(field, PluginFieldType::kINT32, "int32");
  int32_t value;
  std::memcpy(&value, field.data, sizeof value);
  if (value < 1 || value > most)
    throw Refusal(std::string("attribute ") + name, "1 to " + std::to_string(most), std::to_string(value));
  return value;
}

float read_float(const PluginField& field) {
  check_field(field, PluginFieldType::kFLOAT32, "float32");
  float value;
  std::memcpy(&value, field.data, sizeof value);
  if (std::isnan(value)) throw Refusal(std::string("attribute ") + field.name, "a number", "NaN");
  return value;
}

float read_float(const nvinfer1::PluginFieldCollection& fields, const char* name, float otherwise) {
  const PluginField* field = find(fields, name);
  return field ? read_float(*field) : otherwise;
}

// An attribute of a later version would change the result: refuse rather than ignore it. TensorRT's own are
// let pass.
void check_known(const nvinfer1::PluginFieldCollection& fields) {
  for (int32_t i = 0; i < fields.nbFields; ++i) {
    const char* name = fields.fields[i].name;
    bool known = false;
    for (const char* ours : {"n_groups", "head_dim", "state_size", "epsilon", "time_step_min", "time_step_max",
                             "plugin_version", "plugin_namespace"})
      known = known || (name && std::strcmp(name, ours) == 0);
    if (!known)
      throw Refusal("attributes", "n_groups, head_dim, state_size, epsilon, time_step_min, time_step_max",
                    name ? name : "one without a name");
  }
}

}  // namespace

Attributes read_attributes(const nvinfer1::PluginFieldCollection* fields) {
  if (!fields) throw Refusal("attributes", "a field collection", "null");
  check_known(*fields);
  Attributes a;
  a.n_groups = read_int(*fields, "n_groups", kMaxGroups);
  a.head_dim = read_int(*fields, "head_dim", kMaxHeadDim);
  a.state_size = read_int(*fields, "state_size", kMaxState);
  a.epsilon = read_float(required(*fields, "epsilon"));
  a.time_step_min = read_float(*fields, "time_step_min", a.time_step_min);
  a.time_step_max = read_float(*fields, "time_step_max", a.time_step_max);
  if (a.epsilon < 0) throw Refusal("attribute epsilon", "0 or more", std::to_string(a.epsilon));
  if (a.time_step_min > a.time_step_max)
    throw Refusal("attribute time_step_min", "at most time_step_max " + std::to_string(a.time_step_max),
                  std::to_string(a.time_step_min));
  return a;
}

AttributeFields::AttributeFields(const Attributes& a)
    : fields_{PluginField("n_groups", &a.n_groups, PluginFieldType::kINT32, 1),
              PluginField("head_dim", &a.head_dim, PluginFieldType::kINT32, 1),
              PluginField("state_size", &a.state_size, PluginFieldType::kINT32, 1),
              PluginField("epsilon", &a.epsilon, PluginFieldType::kFLOAT32, 1),
              PluginField("time_step_min", &a.time_step_min, PluginFieldType::kFLOAT32, 1),
              PluginField("time_step_max", &a.time_step_max, PluginFieldType::kFLOAT32, 1)},
      collection_{static_cast<int32_t>(fields_.size()), fields_.data()} {}

}  // namespace elastic::mamba2::trt
