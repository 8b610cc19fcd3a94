#include "mixer_op.h"

#include <stdexcept>
#include <string>
#include <utility>

#include "../../common/tensorrt/creators.h"
#include "../../common/tensorrt/plugin.h"
#include "../select.h"

namespace elastic::mamba2::trt {
namespace {

// Counters that are there before the first call, those of 64 rows of the family's 8 groups; more are allocated when
// their shape comes.
constexpr int32_t kCountersAtOnce = 512;

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

void MixerOp::output_types(const nvinfer1::DataType* in, nvinfer1::DataType* out) {
  out[kY] = in[kProjected];
  out[kConvStateOut] = in[kConvState];
  out[kSsmStateOut] = nvinfer1::DataType::kFLOAT;
}

void MixerOp::output_shapes(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs* out) {
  for (const auto& [input, rank] : {std::pair(kProjected, 3), std::pair(kNormWeight, 1)})
    if (in[input].nbDims != rank)
      throw elastic::trt::Refusal(kName, std::string("rank of ") + trt::input_name(input), std::to_string(rank),
                                  std::to_string(in[input].nbDims));
  out[kY] = in[kProjected];
  out[kY].d[2] = in[kNormWeight].d[0];
  out[kConvStateOut] = in[kConvState];
  out[kSsmStateOut] = in[kSsmState];
}

size_t MixerOp::workspace_bytes(const Shape& shape) { return requirements_of(shape).workspace_bytes; }

void MixerOp::attach() { counters_.prepare(kCountersAtOnce); }

void MixerOp::set_call(const Attributes& attributes, const Shape& shape, const nvinfer1::PluginTensorDesc* in) {
  args_.shape = shape;
  args_.activation = elastic::trt::element_type(kName, in[kProjected].type);
  args_.head_param = elastic::trt::element_type(kName, in[kALog].type);
  args_.epsilon = attributes.epsilon;
  args_.time_step_min = attributes.time_step_min;
  args_.time_step_max = attributes.time_step_max;
  args_.multiprocessors = ask_multiprocessors();
  counters_.reserve(requirements_of(shape).counters);
}

void MixerOp::enqueue(const void* const* in, void* const* out, void* workspace, cudaStream_t stream) {
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
  args.counters = counters_.get();
  if (elastic_mamba2_enqueue(&args, ELASTIC_MAMBA2_AUTO, stream) != ELASTIC_OK)
    throw std::runtime_error(elastic_last_error());
}

nvinfer1::IPluginCreatorInterface& mixer_creator() {
  static elastic::trt::Creator<MixerOp> creator;
  return creator;
}

}  // namespace elastic::mamba2::trt
