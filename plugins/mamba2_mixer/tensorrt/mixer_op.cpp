#include "mixer_plugin.h"

#include <algorithm>
#include <memory>
#include <string>

#include "../../common/tensorrt/dims.h"
#include "../../common/tensorrt/guard.h"
#include "../select.h"

namespace elastic::mamba2::trt {
namespace {

using elastic::trt::guarded;
using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

constexpr int32_t kFailure = -1;

// Counters that are there before the first call, those of 64 rows of the family's 8 groups; more are allocated when
// their shape comes.
constexpr int32_t kCountersAtOnce = 512;

void check_count(int32_t inputs, int32_t outputs) {
  if (inputs != kInputs) throw Refusal("inputs", std::to_string(kInputs), std::to_string(inputs));
  if (outputs != kOutputs) throw Refusal("outputs", std::to_string(kOutputs), std::to_string(outputs));
}

std::array<DataType, kInputs + kOutputs> types_of(const PluginTensorDesc* in, const PluginTensorDesc* out) {
  std::array<DataType, kInputs + kOutputs> types{};
  for (int i = 0; i < kInputs; ++i) types[i] = in[i].type;
  for (int i = 0; i < kOutputs; ++i) types[kInputs + i] = out[i].type;
  return types;
}

void check_types(const PluginTensorDesc* in, const PluginTensorDesc* out) {
  const auto types = types_of(in, out);
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

ElasticMamba2Requirements requirements(const Shape& shape) {
  ElasticMamba2Requirements needed = {};
  if (elastic_mamba2_requirements(&shape, &needed) != ELASTIC_OK) throw std::runtime_error(elastic_last_error());
  return needed;
}

int32_t ask_multiprocessors() {
  int device = 0, count = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("Mamba2Mixer: multiprocessors of the current device: ") +
                             cudaGetErrorString(error));
  return count;
}

}  // namespace

nvinfer1::IPluginCapability* MixerPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  if (type == nvinfer1::PluginCapabilityType::kCORE) return static_cast<nvinfer1::IPluginV3OneCore*>(this);
  if (type == nvinfer1::PluginCapabilityType::kBUILD) return static_cast<nvinfer1::v_2_0::IPluginV3OneBuild*>(this);
  if (type == nvinfer1::PluginCapabilityType::kRUNTIME) return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  return nullptr;
}

nvinfer1::IPluginV3* MixerPlugin::clone() noexcept {
  return guarded<nvinfer1::IPluginV3*>(nullptr, [&] { return new MixerPlugin(attributes_); });
}

// Memory is taken here, where a context is made: onShapeChange runs inside the call that follows a new shape, and
// TensorRT may be recording that one. A builder attaches too, on machines without a GPU: no memory is no failure here.
nvinfer1::IPluginV3* MixerPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
  return guarded<nvinfer1::IPluginV3*>(nullptr, [&] {
    auto attached = std::make_unique<MixerPlugin>(attributes_);
    attached->counters_.prepare(kCountersAtOnce);
    return attached.release();
  });
}

int32_t MixerPlugin::configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs, const DynamicPluginTensorDesc*,
                                     int32_t outputs) noexcept {
  return guarded(kFailure, [&] {
    check_count(inputs, outputs);
    const auto dims = dims_of(in, [](const auto& d) { return d.max; });
    if (std::all_of(dims.begin(), dims.end(), elastic::trt::is_known)) (void)read_shape(attributes_, dims.data());
    return 0;
  });
}

int32_t MixerPlugin::getOutputDataTypes(DataType* out, int32_t outputs, const DataType* in,
                                        int32_t inputs) const noexcept {
  return guarded(kFailure, [&] {
    check_count(inputs, outputs);
    out[kY] = in[kProjected];
    out[kConvStateOut] = in[kConvState];
    out[kSsmStateOut] = DataType::kFLOAT;
    return 0;
  });
}

int32_t MixerPlugin::getOutputShapes(const nvinfer1::DimsExprs* in, int32_t inputs, const nvinfer1::DimsExprs*, int32_t,
                                     nvinfer1::DimsExprs* out, int32_t outputs, nvinfer1::IExprBuilder&) noexcept {
  return guarded(kFailure, [&] {
    check_count(inputs, outputs);
    if (in[kProjected].nbDims != 3) throw Refusal("rank of projected", "3", std::to_string(in[kProjected].nbDims));
    if (in[kNormWeight].nbDims != 1) throw Refusal("rank of norm_weight", "1", std::to_string(in[kNormWeight].nbDims));
    out[kY] = in[kProjected];
    out[kY].d[2] = in[kNormWeight].d[0];
    out[kConvStateOut] = in[kConvState];
    out[kSsmStateOut] = in[kSsmState];
    return 0;
  });
}

bool MixerPlugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t inputs,
                                            int32_t outputs) noexcept {
  return guarded(false, [&] {
    check_count(inputs, outputs);
    std::array<DataType, kInputs + kOutputs> types{};  // beyond `position` they are not set yet
    for (int i = 0; i <= position; ++i) types[i] = tensors[i].desc.type;
    return tensors[position].desc.format == nvinfer1::TensorFormat::kLINEAR && allowed_type(position, types.data());
  });
}

size_t MixerPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* in, int32_t inputs, const DynamicPluginTensorDesc*,
                                     int32_t outputs) const noexcept {
  return guarded<size_t>(0, [&] {
    check_count(inputs, outputs);
    const auto dims = dims_of(in, [](const auto& d) { return d.max; });
    return requirements(read_shape(attributes_, dims.data())).workspace_bytes;
  });
}

int32_t MixerPlugin::onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc* out,
                                   int32_t outputs) noexcept {
  return guarded(kFailure, [&] {
    check_count(inputs, outputs);
    check_types(in, out);
    args_.shape = read_shape(attributes_, dims_of(in, [](const auto& d) { return d.dims; }).data());
    args_.activation = elastic::trt::element_type(kName, in[kProjected].type);
    args_.head_param = elastic::trt::element_type(kName, in[kALog].type);
    args_.epsilon = attributes_.epsilon;
    args_.time_step_min = attributes_.time_step_min;
    args_.time_step_max = attributes_.time_step_max;
    args_.multiprocessors = ask_multiprocessors();
    counters_.reserve(requirements(args_.shape).counters);
    return 0;
  });
}

int32_t MixerPlugin::enqueue(const PluginTensorDesc*, const PluginTensorDesc*, const void* const* in, void* const* out,
                             void* workspace, cudaStream_t stream) noexcept {
  return guarded(kFailure, [&] {
    ElasticMamba2Args args = args_;
    args.projected = in[kProjected];
    args.conv_weight = in[kConvWeight];
    args.conv_bias = in[kConvBias];
    args.a_log = in[kALog];
    args.d = in[kD];
    args.dt_bias = in[kDtBias];
    args.norm_weight = in[kNormWeight];
    args.length = static_cast<const int64_t*>(in[kLength]);
    args.conv_state = in[kConvState];
    args.ssm_state = static_cast<const float*>(in[kSsmState]);
    args.y = out[kY];
    args.conv_state_out = out[kConvStateOut];
    args.ssm_state_out = static_cast<float*>(out[kSsmStateOut]);
    args.workspace = static_cast<float*>(workspace);
    counters_.zero(stream);
    args.counters = counters_.get();
    if (elastic_mamba2_enqueue(&args, ELASTIC_MAMBA2_AUTO, stream) != ELASTIC_OK)
      throw std::runtime_error(elastic_last_error());
    return 0;
  });
}

}  // namespace elastic::mamba2::trt
