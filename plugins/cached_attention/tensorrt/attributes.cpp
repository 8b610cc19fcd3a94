#include "attributes.h"

#include <stdexcept>

#include "../../common/tensorrt/fields.h"
#include "../select.h"

namespace elastic::attention::trt {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

Attributes read_attributes(const nvinfer1::PluginFieldCollection* collection) {
  const elastic::trt::Fields fields(kName, collection, {"num_heads", "num_key_value_heads", "head_dim", "scale"});
  Attributes a;
  a.num_heads = fields.read_int("num_heads", INT32_MAX);
  a.num_key_value_heads = fields.read_int("num_key_value_heads", kMaxKeyValueHeads);
  a.head_dim = fields.read_int("head_dim", kMaxHeadDim);
  a.scale = fields.read_float("scale");
  std::string fault = check_scale(a.scale);
  if (fault.empty()) fault = check_shape({1, 1, a.num_heads, a.num_key_value_heads, a.head_dim, 1});
  if (!fault.empty()) throw std::runtime_error(fault);
  return a;
}

AttributeFields::AttributeFields(const Attributes& a)
    : fields_{PluginField("num_heads", &a.num_heads, PluginFieldType::kINT32, 1),
              PluginField("num_key_value_heads", &a.num_key_value_heads, PluginFieldType::kINT32, 1),
              PluginField("head_dim", &a.head_dim, PluginFieldType::kINT32, 1),
              PluginField("scale", &a.scale, PluginFieldType::kFLOAT32, 1)},
      collection_{static_cast<int32_t>(fields_.size()), fields_.data()} {}

}  // namespace elastic::attention::trt
