// Typed pointers to a call's tensors, made once where a kernel begins; and how the per-head parameters are read.
//
// What a kernel only reads is an `Input`: nothing that the kernel stores can be the reason to delay or repeat such a
// load. Offsets of a row or token are int64, those inside of one are int: check_shape in select.cpp sees to that.
#pragma once

#include "../common/device.cuh"
#include "limits.h"
#include "params.h"

namespace elastic::mamba2 {

// The convolution channel where a group's B begins; its C begins groups*state_size further on.
ELASTIC_HD int b_channel(const Shape& shape, int group) { return inner_channels(shape) + group * shape.state_size; }
ELASTIC_HD int c_channel(const Shape& shape, int group) {
  return b_channel(shape, group) + shape.groups * shape.state_size;
}

// Token t of row b among all tokens of the call.
ELASTIC_HD int64_t token_index(const Shape& shape, int b, int t) { return static_cast<int64_t>(b) * shape.tokens + t; }
// Of the convolution states of row b.
ELASTIC_HD int64_t conv_state_offset(const Shape& shape, int b) {
  return static_cast<int64_t>(b) * (shape.conv_width - 1) * conv_channels(shape);
}
// Of channel row 0 of one head in the SSM state.
ELASTIC_HD int64_t ssm_state_offset(const Shape& shape, int b, int head) {
  return (static_cast<int64_t>(b) * shape.heads + head) * shape.head_dim * shape.state_size;
}

// One token's row of `projected`.
template <typename T>
struct TokenView {
  Input<T> z;         // [di]
  Input<T> channels;  // [dc], x | B | C before the convolution
  Input<T> dt;        // [H]

  ELASTIC_D TokenView(const Args& args, int b, int t)
      : z(Input<T>(args.projected).from(token_index(args.shape, b, t) * projected_width(args.shape))),
        channels(z.from(inner_channels(args.shape))),
        dt(channels.from(conv_channels(args.shape))) {}
};

template <typename T>
ELASTIC_D T* output_row(const Args& args, int b, int t) {
  return static_cast<T*>(args.y) + token_index(args.shape, b, t) * inner_channels(args.shape);
}

// Real tokens of a row, 0..T whatever the tensor holds.
ELASTIC_D int real_tokens(int64_t length, int tokens) {
  return length < 0 ? 0 : (length > tokens ? tokens : static_cast<int>(length));
}
ELASTIC_D int real_tokens(const Args& args, int b) {
  return real_tokens(Input<int64_t>(args.length)[b], args.shape.tokens);
}

// One element of a tensor of type args.head_param as it was loaded: its value is made later, so that a kernel may wait
// for all of its loads together.
class HeadParam {
 public:
  ELASTIC_D HeadParam(const Args& args, const void* values, int head) {
    if (args.head_param == ELASTIC_FLOAT32)
      bits_ = Input<uint32_t>(values)[head];
    else
      bits_ = Input<uint16_t>(values)[head];
  }
  ELASTIC_D float value(int type) const {
    if (type == ELASTIC_FLOAT32) return float_of_bits(bits_);
    if (type == ELASTIC_FLOAT16) return to_float(half_of_bits(static_cast<uint16_t>(bits_)));
    return float_of_bits(bits_ << 16);  // bfloat16: the upper half of a float
  }

 private:
  uint32_t bits_;
};

}  // namespace elastic::mamba2
