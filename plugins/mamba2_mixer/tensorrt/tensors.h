// The op's tensors as TensorRT describes them: contract.json's `inputs` and `outputs`, in its order.
#pragma once

#include "../params.h"
#include "attributes.h"

namespace elastic::mamba2::trt {

enum Input {
  kProjected,
  kConvWeight,
  kConvBias,
  kALog,
  kD,
  kDtBias,
  kNormWeight,
  kLength,
  kConvState,
  kSsmState,
  kInputs
};
enum Output { kY, kConvStateOut, kSsmStateOut, kOutputs };

// Whether the type of tensor `index` (inputs, then outputs) is allowed beside those before it.
bool allowed_type(int index, const nvinfer1::DataType* types);

// The shape of a call from the dims of its inputs, every dimension checked; throws Refusal.
Shape read_shape(const Attributes& attributes, const nvinfer1::Dims* inputs);

// As contract.json names it.
inline const char* input_name(int index) {
  constexpr const char* kNames[] = {"projected", "conv_weight", "conv_bias", "A_log",      "D",
                                    "dt_bias",   "norm_weight", "length",    "conv_state", "ssm_state"};
  return kNames[index];
}

}  // namespace elastic::mamba2::trt
