// Where the elements of the call's tensors lie, and how the per-head parameters are read.
#pragma once

#include "../common/device.cuh"
#include "params.h"

namespace elastic::mamba2 {

constexpr int kMaxTaps = 8;       // limits.K of contract.json
constexpr int kMaxState = 256;    // limits.N
constexpr int kMaxHeadDim = 256;  // limits.P

// First element of token t of row b.
template <typename T>
ELASTIC_D const T* projected_row(const Args& args, int b, int t) {
  const int64_t row = static_cast<int64_t>(b) * args.shape.tokens + t;
  return static_cast<const T*>(args.projected) + row * projected_width(args.shape);
}

template <typename T>
ELASTIC_D T* output_row(const Args& args, int b, int t) {
  const int64_t row = static_cast<int64_t>(b) * args.shape.tokens + t;
  return static_cast<T*>(args.y) + row * inner_channels(args.shape);
}

ELASTIC_D int64_t conv_state_offset(const Shape& shape, int b) {
  return static_cast<int64_t>(b) * (shape.conv_width - 1) * conv_channels(shape);
}

// Offset of channel row 0 of one head in the SSM state.
ELASTIC_D int64_t ssm_state_offset(const Shape& shape, int b, int head) {
  return (static_cast<int64_t>(b) * shape.heads + head) * shape.head_dim * shape.state_size;
}

// Real tokens of row b, 0..T whatever the tensor holds.
ELASTIC_D int real_tokens(const Args& args, int b) {
  const int64_t length = args.length[b];
  return length < 0 ? 0 : (length > args.shape.tokens ? args.shape.tokens : static_cast<int>(length));
}

// Element `head` of A_log, D or dt_bias, whose type is args.head_param.
ELASTIC_D float head_param(const Args& args, const void* values, int head) {
  if (args.head_param == ELASTIC_FLOAT32) return static_cast<const float*>(values)[head];
  if (args.head_param == ELASTIC_FLOAT16) return to_float(static_cast<const float16*>(values)[head]);
  return to_float(static_cast<const bfloat16*>(values)[head]);
}

// The convolution channel where a group's B begins; its C begins groups*state_size further on.
ELASTIC_D int b_channel(const Shape& shape, int group) {
  return inner_channels(shape) + group * shape.state_size;
}
ELASTIC_D int c_channel(const Shape& shape, int group) {
  return b_channel(shape, group) + shape.groups * shape.state_size;
}

}  // namespace elastic::mamba2
