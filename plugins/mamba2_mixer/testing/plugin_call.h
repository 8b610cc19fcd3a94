// A call as TensorRT would make it, without TensorRT: fields, descriptions, enqueue. For tests.
#pragma once

#include <NvInferRuntime.h>

#include <vector>

#include "../../common/testing/plugin_library.h"
#include "../elastic_mamba2.h"
#include "../tensorrt/tensors.h"

namespace elastic::mamba2::trt {

// Dims of all inputs and outputs of a call, in the contract's order.
inline std::vector<nvinfer1::Dims> call_dims(const Shape& s) {
  const int64_t channels = conv_channels(s), inner = inner_channels(s), taps = s.conv_width - 1;
  using nvinfer1::Dims;
  return {Dims{3, {s.batch, s.tokens, projected_width(s)}},
          Dims{3, {channels, 1, s.conv_width}},
          Dims{1, {channels}},
          Dims{1, {s.heads}},
          Dims{1, {s.heads}},
          Dims{1, {s.heads}},
          Dims{1, {inner}},
          Dims{1, {s.batch}},
          Dims{3, {s.batch, taps, channels}},
          Dims{4, {s.batch, s.heads, s.head_dim, s.state_size}},
          Dims{3, {s.batch, s.tokens, inner}},
          Dims{3, {s.batch, taps, channels}},
          Dims{4, {s.batch, s.heads, s.head_dim, s.state_size}}};
}

inline nvinfer1::DataType tensorrt_type(int dtype) {
  using nvinfer1::DataType;
  return dtype == ELASTIC_FLOAT32 ? DataType::kFLOAT : (dtype == ELASTIC_FLOAT16 ? DataType::kHALF : DataType::kBF16);
}

// Descriptions of all inputs and outputs of a call.
inline std::vector<nvinfer1::PluginTensorDesc> call_descriptions(const Shape& shape, int activation, int head_param) {
  std::vector<nvinfer1::PluginTensorDesc> all;
  for (const nvinfer1::Dims& dims : call_dims(shape))
    all.push_back({dims, tensorrt_type(activation), nvinfer1::TensorFormat::kLINEAR, 1.f});
  for (int i : {kALog, kD, kDtBias}) all[i].type = tensorrt_type(head_param);
  all[kLength].type = nvinfer1::DataType::kINT64;
  all[kSsmState].type = all[kInputs + kSsmStateOut].type = nvinfer1::DataType::kFLOAT;
  return all;
}

// One call through a fresh plugin.
inline void call_plugin(const ElasticMamba2Args& a, cudaStream_t stream) {
  const Attributes attributes = {a.shape.groups, a.shape.head_dim, a.shape.state_size,
                                 a.epsilon,      a.time_step_min,  a.time_step_max};
  const AttributeFields fields(attributes);
  elastic::testing::call_plugin(kName, fields.collection(), call_descriptions(a.shape, a.activation, a.head_param),
                                {a.projected, a.conv_weight, a.conv_bias, a.a_log, a.d, a.dt_bias, a.norm_weight,
                                 a.length, a.conv_state, a.ssm_state},
                                {a.y, a.conv_state_out, a.ssm_state_out}, a.workspace, stream);
}

}  // namespace elastic::mamba2::trt
