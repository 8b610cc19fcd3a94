// CachedAttention as the template of common/tensorrt/plugin.h wants it.
#pragma once

#include <NvInferRuntime.h>

#include "../elastic_attention.h"
#include "attributes.h"
#include "tensors.h"

namespace elastic::attention::trt {

class AttentionOp {
 public:
  using Attributes = trt::Attributes;
  static constexpr auto kName = trt::kName, kVersion = "1";
  static constexpr int kInputs = trt::kInputs, kOutputs = trt::kOutputs;
  static constexpr auto check = &check_attributes;
  static constexpr auto input_name = &trt::input_name;
  static constexpr auto allowed_type = &trt::allowed_type;
  static constexpr auto read_shape = &trt::read_shape;

  static void output_types(const nvinfer1::DataType* in, nvinfer1::DataType* out);
  static void output_shapes(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs* out);
  static int aliased_input(int output);  // caches are written in place
  static size_t workspace_bytes(const Shape& shape);

  void attach() {}
  void set_call(const Attributes& attributes, const Shape& shape, const nvinfer1::PluginTensorDesc* in);
  void enqueue(const void* const* in, void* const* out, void* workspace, cudaStream_t stream) const;

 private:
  ElasticAttentionArgs args_ = {};  // shape, type and scale of the current call
};

}  // namespace elastic::attention::trt
