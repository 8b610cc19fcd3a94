#include "attributes.h"

#include "../../common/tensorrt/fields.h"
#include "../limits.h"

namespace elastic::mamba2::trt {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

Attributes read_attributes(const nvinfer1::PluginFieldCollection* collection) {
  const elastic::trt::Fields fields(
      kName, collection, {"n_groups", "head_dim", "state_size", "epsilon", "time_step_min", "time_step_max"});
  Attributes a;
  a.n_groups = fields.read_int("n_groups", kMaxGroups);
  a.head_dim = fields.read_int("head_dim", kMaxHeadDim);
  a.state_size = fields.read_int("state_size", kMaxState);
  a.epsilon = fields.read_float("epsilon");
  a.time_step_min = fields.read_float("time_step_min", a.time_step_min);
  a.time_step_max = fields.read_float("time_step_max", a.time_step_max);
  if (a.epsilon < 0) fields.refuse("epsilon", "0 or more", std::to_string(a.epsilon));
  if (a.time_step_min > a.time_step_max)
    fields.refuse("time_step_min", "at most time_step_max " + std::to_string(a.time_step_max),
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
