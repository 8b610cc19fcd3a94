#include "attention_plugin.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "../../common/tensorrt/dims.h"
#include "../../common/tensorrt/guard.h"
#include "../select.h"

namespace elastic::attention::trt {
namespace {

using elastic::trt::guarded;
using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

constexpr int32_t kFailure = -1;

void check_count(int32_t inputs, int32_t outputs) {
  if (inputs != kInputs) throw Refusal("inputs", std::to_string(kInputs), std::to_string(inputs));
  if (outputs != kOutputs) throw Refusal("outputs", std::to_string(kOutputs), std::to_string(outputs));
}

void check_types(const PluginTensorDesc* in, const PluginTensorDesc* out) {
  std::array<DataType, kInputs + kOutputs> types{};
  for (int i = 0; i < kInputs + kOutputs; ++i) types[i] = i < kInputs ? in[i].type : out[i - kInputs].type;
  for (int i = 0; i < kInputs + kOutputs; ++i)
    if (!allowed_type(i, types.data()))
      throw Refusal(
          i < kInputs ? std::string("type of ") + input_name(i) : "type of output " + std::to_string(i - kInputs),
          "what contract.json allows", "type " + std::to_string(static_cast<int>(types[i])));
}

// Dims of all inputs as `pick` finds them in a description.
template <typename Desc, typename Pick>
std::array<Dims, kInputs> dims_of(const Desc* in, Pick pick) {
  std::array<Dims, kInputs> dims;
  for (int i = 0; i < kInputs; ++i) dims[i] = pick(in[i]);
  return dims;
}

}  // namespace

nvinfer1::IPluginCapability* AttentionPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  if (type == nvinfer1::PluginCapabilityType::kCORE) return static_cast<nvinfer1::IPluginV3OneCore*>(this);
  if (type == nvinfer1::PluginCapabilityType::kBUILD) return static_cast<nvinfer1::v_2_0::IPluginV3OneBuild*>(this);
  if (type == nvinfer1::PluginCapabilityType::kRUNTIME) return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  return nullptr;
}

nvinfer1::IPluginV3* AttentionPlugin::clone() noexcept {
  return guarded<nvinfer1::IPluginV3*>(nullptr, [&] { return new AttentionPlugin(attributes_); });
}

nvinfer1::IPluginV3* AttentionPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept { return clone(); }

int32_t AttentionPlugin::configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs,
                                         const DynamicPluginTensorDesc*, int32_t outputs) noexcept {
  return guarded(kFailure, [&] {
    check_count(inputs, outputs);
    const auto dims = dims_of(in, [](const auto& d) { return d.max; });
    if (std::all_of(dims.begin(), dims.end(), elastic::trt::is_known)) (void)read_shape(attributes_, dims.data());
    return 0;
  });
}

int32_t AttentionPlugin::getOutputDataTypes(DataType* out, int32_t outputs, const DataType* in,
                                            int32_t inputs) const noexcept {
  return guarded(kFailure, [&] {
    check_count(inputs, outputs);
    out[kY] = in[kQuery];
    out[kKeyCacheOut] = in[kKeyCache];
    out[kValueCacheOut] = in[kValueCache];
    return 0;
  });
}

int32_t AttentionPlugin::getOutputShapes(const nvinfer1::DimsExprs* in, int32_t inputs, const nvinfer1::DimsExprs*,
                                         int32_t, nvinfer1::DimsExprs* out, int32_t outputs,
                                         nvinfer1::IExprBuilder&) noexcept {
  return guarded(kFailure, [&] {
    check_count(inputs, outputs);
    out[kY] = in[kQuery];
    out[kKeyCacheOut] = in[kKeyCache];
    out[kValueCacheOut] = in[kValueCache];
    return 0;
  });
}

bool AttentionPlugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors,
                                                int32_t inputs, int32_t outputs) noexcept {
  return guarded(false, [&] {
    check_count(inputs, outputs);
    std::array<DataType, kInputs + kOutputs> types{};  // beyond `position` they are not set yet
    for (int i = 0; i <= position; ++i) types[i] = tensors[i].desc.type;
    return tensors[position].desc.format == nvinfer1::TensorFormat::kLINEAR && allowed_type(position, types.data());
  });
}

size_t AttentionPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* in, int32_t inputs,
                                         const DynamicPluginTensorDesc*, int32_t outputs) const noexcept {
  return guarded<size_t>(0, [&] {
    check_count(inputs, outputs);
    const auto dims = dims_of(in, [](const auto& d) { return d.max; });
    return static_cast<size_t>(requirements_of(read_shape(attributes_, dims.data())).workspace_bytes);
  });
}

// Caches are written in place.
int32_t AttentionPlugin::getAliasedInput(int32_t output) noexcept {
  if (output == kKeyCacheOut) return kKeyCache;
  return output == kValueCacheOut ? kValueCache : -1;
}

int32_t AttentionPlugin::onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc* out,
                                       int32_t outputs) noexcept {
  return guarded(kFailure, [&] {
    check_count(inputs, outputs);
    check_types(in, out);
    args_.shape = read_shape(attributes_, dims_of(in, [](const auto& d) { return d.dims; }).data());
    args_.dtype = elastic::trt::element_type(kName, in[kQuery].type);
    args_.scale = attributes_.scale;
    return 0;
  });
}

int32_t AttentionPlugin::enqueue(const PluginTensorDesc*, const PluginTensorDesc*, const void* const* in,
                                 void* const* out, void* workspace, cudaStream_t stream) noexcept {
  return guarded(kFailure, [&] {
    if (in[kKeyCache] != out[kKeyCacheOut] || in[kValueCache] != out[kValueCacheOut])
      throw Refusal("caches", "outputs in the buffers of the inputs", "others");
    ElasticAttentionArgs args = args_;
    args.query = in[kQuery];
    args.key = in[kKey];
    args.value = in[kValue];
    args.position = static_cast<const int64_t*>(in[kPosition]);
    args.key_cache = out[kKeyCacheOut];
    args.value_cache = out[kValueCacheOut];
    args.y = out[kY];
    args.workspace = static_cast<float*>(workspace);
    if (elastic_attention_enqueue(&args, ELASTIC_ATTENTION_AUTO, stream) != ELASTIC_OK)
      throw std::runtime_error(elastic_last_error());
    return 0;
  });
}

}  // namespace elastic::attention::trt
