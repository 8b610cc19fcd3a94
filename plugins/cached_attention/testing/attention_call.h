// The plugin as TensorRT would use it, without TensorRT: creator, fields, descriptions, enqueue. For tests.
#pragma once

#include <memory>
#include <stdexcept>
#include <vector>

#include "../../common/testing/plugin_library.h"
#include "../elastic_attention.h"
#include "../tensorrt/tensors.h"

namespace elastic::attention::trt {

inline nvinfer1::IPluginCreatorV3One& find_creator() { return elastic::testing::find_creator(kName); }

// Descriptions of all inputs and outputs of a call, in the contract's order.
inline std::vector<nvinfer1::PluginTensorDesc> call_descriptions(const Shape& s, int dtype) {
  using nvinfer1::Dims;
  const auto type = dtype == ELASTIC_FLOAT16 ? nvinfer1::DataType::kHALF : nvinfer1::DataType::kBF16;
  const Dims query{3, {s.batch, s.tokens, query_width(s)}}, key{3, {s.batch, s.tokens, key_width(s)}};
  const Dims cache{4, {s.batch, s.key_value_heads, s.context, s.head_dim}}, position{1, {s.batch}};
  std::vector<nvinfer1::PluginTensorDesc> all;
  for (const Dims& dims : {query, key, key, cache, cache, position, query, cache, cache})
    all.push_back({dims, type, nvinfer1::TensorFormat::kLINEAR, 1.f});
  all[kPosition].type = nvinfer1::DataType::kINT64;
  return all;
}

// One call through a fresh plugin: created, attached, told its shapes, enqueued, waited for.
inline void call_plugin(const ElasticAttentionArgs& a, cudaStream_t stream) {
  const Attributes attributes = {a.shape.heads, a.shape.key_value_heads, a.shape.head_dim, a.scale};
  const AttributeFields fields(attributes);
  constexpr auto kPhase = nvinfer1::TensorRTPhase::kRUNTIME;
  std::unique_ptr<nvinfer1::IPluginV3> made(find_creator().createPlugin("attention", fields.collection(), kPhase));
  if (!made) throw std::runtime_error("createPlugin: refused");
  constexpr auto kRuntime = nvinfer1::PluginCapabilityType::kRUNTIME;
  auto* unattached = static_cast<nvinfer1::IPluginV3OneRuntime*>(made->getCapabilityInterface(kRuntime));
  std::unique_ptr<nvinfer1::IPluginV3> plugin(unattached->attachToContext(nullptr));
  auto* runtime = static_cast<nvinfer1::IPluginV3OneRuntime*>(plugin->getCapabilityInterface(kRuntime));
  const auto all = call_descriptions(a.shape, a.dtype);
  const nvinfer1::PluginTensorDesc *in = all.data(), *out = all.data() + kInputs;
  if (runtime->onShapeChange(in, kInputs, out, kOutputs) != 0) throw std::runtime_error("onShapeChange: refused");
  const void* inputs[] = {a.query, a.key, a.value, a.key_cache, a.value_cache, a.position};
  void* outputs[] = {a.y, a.key_cache, a.value_cache};
  if (runtime->enqueue(in, out, inputs, outputs, a.workspace, stream) != 0) throw std::runtime_error("enqueue: failed");
  if (cudaStreamSynchronize(stream) != cudaSuccess) throw std::runtime_error("enqueue: a kernel failed");
}

}  // namespace elastic::attention::trt
