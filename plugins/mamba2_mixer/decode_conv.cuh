// The convolution of one token at one channel, and its state moved on from the old buffer to the new one.
#pragma once

#include "maths.h"
#include "tensors.cuh"

namespace elastic::mamba2 {

template <typename T>
ELASTIC_D const T* old_conv_state(const Args& args, int b, int channel) {
  return static_cast<const T*>(args.conv_state) + conv_state_offset(args.shape, b) + channel;
}
template <typename T>
ELASTIC_D T* new_conv_state(const Args& args, int b, int channel) {
  return static_cast<T*>(args.conv_state_out) + conv_state_offset(args.shape, b) + channel;
}
template <typename T>
ELASTIC_D T conv_token(const Args& args, int b, int channel) {
  return projected_row<T>(args, b, 0)[inner_channels(args.shape) + channel];
}

// What one channel of a convolution of four taps, the family's width, needs; the weights are one access.
template <typename T>
struct FourTaps {
  T window[4];
  Pack<T, 4> weight;
  T bias;

  ELASTIC_D void load(const Args& args, int b, int channel) {
    const T* old = old_conv_state<T>(args, b, channel);
    const int channels = conv_channels(args.shape);
    ELASTIC_UNROLL
    for (int k = 0; k < 3; ++k) window[k] = old[k * channels];
    window[3] = conv_token<T>(args, b, channel);
    weight = load_pack<T, 4>(static_cast<const T*>(args.conv_weight) + channel * 4);
    bias = static_cast<const T*>(args.conv_bias)[channel];
  }
  ELASTIC_D float value() const {
    float sum = to_float(bias);
    ELASTIC_UNROLL
    for (int k = 0; k < 4; ++k) sum = fmaf(to_float(weight.at[k]), to_float(window[k]), sum);
    return silu(sum);
  }
  ELASTIC_D void move_on(const Args& args, int b, int channel) const {
    T* fresh = new_conv_state<T>(args, b, channel);
    ELASTIC_UNROLL
    for (int k = 1; k < 4; ++k) fresh[(k - 1) * conv_channels(args.shape)] = window[k];
  }
};

// Any width; `writes`: move the channel's state on as well.
template <typename T>
ELASTIC_D float convolve_any(const Args& args, int b, int channel, bool writes) {
  const int channels = conv_channels(args.shape), width = args.shape.conv_width;
  const T *old = old_conv_state<T>(args, b, channel), current = conv_token<T>(args, b, channel);
  const T* taps = static_cast<const T*>(args.conv_weight) + channel * width;
  T* fresh = new_conv_state<T>(args, b, channel);
  float sum = to_float(static_cast<const T*>(args.conv_bias)[channel]);
  for (int k = 0; k < width; ++k) {
    const T value = k == width - 1 ? current : old[k * channels];
    sum = fmaf(to_float(taps[k]), to_float(value), sum);
    if (writes && k > 0) fresh[(k - 1) * channels] = value;
  }
  return silu(sum);
}

}  // namespace elastic::mamba2
