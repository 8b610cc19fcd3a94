// A call as TensorRT would make it, without TensorRT: fields, descriptions, enqueue. For tests.
#pragma once

#include <vector>

#include "../../common/testing/plugin_library.h"
#include "../elastic_attention.h"
#include "../tensorrt/tensors.h"

namespace elastic::attention::trt {

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

// One call through a fresh plugin.
inline void call_plugin(const ElasticAttentionArgs& a, cudaStream_t stream) {
  const Attributes attributes = {a.shape.heads, a.shape.key_value_heads, a.shape.head_dim, a.scale};
  const AttributeFields fields(attributes);
  elastic::testing::call_plugin(kName, fields.collection(), call_descriptions(a.shape, a.dtype),
                                {a.query, a.key, a.value, a.key_cache, a.value_cache, a.position},
                                {a.y, a.key_cache, a.value_cache}, a.workspace, stream);
}

}  // namespace elastic::attention::trt
