#include "attention_op.h"

#include <stdexcept>

#include "../../common/tensorrt/creators.h"
#include "../../common/tensorrt/plugin.h"
#include "../select.h"

namespace elastic::attention::trt {

void AttentionOp::output_types(const nvinfer1::DataType* in, nvinfer1::DataType* out) {
  out[kY] = in[kQuery];
  out[kKeyCacheOut] = in[kKeyCache];
  out[kValueCacheOut] = in[kValueCache];
}

void AttentionOp::output_shapes(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs* out) {
  out[kY] = in[kQuery];
  out[kKeyCacheOut] = in[kKeyCache];
  out[kValueCacheOut] = in[kValueCache];
}

int AttentionOp::aliased_input(int output) {
  if (output == kKeyCacheOut) return kKeyCache;
  return output == kValueCacheOut ? kValueCache : -1;
}

size_t AttentionOp::workspace_bytes(const Shape& shape) { return requirements_of(shape).workspace_bytes; }

void AttentionOp::set_call(const Attributes& attributes, const Shape& shape, const nvinfer1::PluginTensorDesc* in) {
  args_.shape = shape;
  args_.dtype = elastic::trt::element_type(kName, in[kQuery].type);
  args_.scale = attributes.scale;
}

void AttentionOp::enqueue(const void* const* in, void* const* out, void* workspace, cudaStream_t stream) const {
  if (in[kKeyCache] != out[kKeyCacheOut] || in[kValueCache] != out[kValueCacheOut])
    throw elastic::trt::Refusal(kName, "caches", "outputs in the buffers of the inputs", "others");
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
}

nvinfer1::IPluginCreatorInterface& attention_creator() {
  static elastic::trt::Creator<AttentionOp> creator;
  return creator;
}

}  // namespace elastic::attention::trt
