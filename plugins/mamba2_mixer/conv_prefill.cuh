// Causal depthwise convolution and SiLU of all tokens, the new convolution state, and dt.
//
// Grid (channel blocks + head blocks, token tiles, B). A thread keeps the window of its channels in registers
// and slides it over one tile of tokens; channels lie innermost, so neighbours read neighbours. The last
// blocks of the first grid axis compute dt instead.
#pragma once

#include "maths.h"
#include "prefill_workspace.cuh"
#include "tensors.cuh"

namespace elastic::mamba2 {

constexpr int kConvThreads = 128;
constexpr int kConvTokens = 16;  // a tile: K-1 tokens are read twice

// Channels [channel, channel+kVec) of convolution input j of row b; j < 0 lies in the state.
template <typename T, int kVec>
ELASTIC_D Pack<T, kVec> conv_input(const Args& args, int b, int j, int channel) {
  const Shape& shape = args.shape;
  if (j >= 0) return load_pack<T, kVec>(projected_row<T>(args, b, j) + inner_channels(shape) + channel);
  const int64_t slot = static_cast<int64_t>(shape.conv_width - 1 + j) * conv_channels(shape);
  return load_pack<T, kVec>(static_cast<const T*>(args.conv_state) + conv_state_offset(shape, b) + slot +
                            channel);
}

// The last K-1 raw inputs: those of this call, and of the old state where the call was shorter.
template <typename T, int kVec>
ELASTIC_D void write_conv_state(const Args& args, int b, int length, int channel) {
  const Shape& shape = args.shape;
  T* fresh = static_cast<T*>(args.conv_state_out) + conv_state_offset(shape, b) + channel;
  for (int k = 0; k < shape.conv_width - 1; ++k)
    store_pack(fresh + static_cast<int64_t>(k) * conv_channels(shape),
               conv_input<T, kVec>(args, b, length - (shape.conv_width - 1) + k, channel));
}

// Right-aligned in kTaps slots: slot kTaps-1 meets the current token. Slots before kTaps-K stay unused.
template <typename T, int kVec, int kTaps>
struct ConvWindow {
  float weight[kTaps][kVec], input[kTaps][kVec], bias[kVec];
  int unused;

  ELASTIC_D void start(const Args& args, int b, int first_token, int channel) {
    const int width = args.shape.conv_width;
    unused = kTaps - width;
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) bias[v] = to_float(static_cast<const T*>(args.conv_bias)[channel + v]);
    ELASTIC_UNROLL
    for (int k = 0; k < kTaps; ++k) {
      if (k < unused) continue;
      ELASTIC_UNROLL
      for (int v = 0; v < kVec; ++v) {
        const int64_t at = static_cast<int64_t>(channel + v) * width + k - unused;
        weight[k][v] = to_float(static_cast<const T*>(args.conv_weight)[at]);
      }
      if (k == kTaps - 1) continue;
      set(k, conv_input<T, kVec>(args, b, first_token - (kTaps - 1) + k, channel));
    }
  }
  ELASTIC_D void set(int k, const Pack<T, kVec>& values) {
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) input[k][v] = to_float(values.at[v]);
  }
  ELASTIC_D Pack<float, kVec> value() const {
    Pack<float, kVec> out;
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) {
      float sum = bias[v];
      ELASTIC_UNROLL
      for (int k = 0; k < kTaps; ++k)
        if (k >= unused) sum = fmaf(weight[k][v], input[k][v], sum);
      out.at[v] = silu(sum);
    }
    return out;
  }
  ELASTIC_D void slide() {
    ELASTIC_UNROLL
    for (int k = 0; k + 1 < kTaps; ++k) {
      if (k < unused) continue;
      ELASTIC_UNROLL
      for (int v = 0; v < kVec; ++v) input[k][v] = input[k + 1][v];
    }
  }
};

template <typename T>
ELASTIC_D void write_steps(const Args& args, const PrefillWorkspace& workspace, int b, int head, int begin,
                           int end) {
  const int column = projected_width(args.shape) - args.shape.heads + head;
  const float bias = head_param(args, args.dt_bias, head);
  float* steps = workspace.steps_of(args.shape, b, head);
  for (int t = begin; t < end; ++t)
    steps[t] = time_step(to_float(projected_row<T>(args, b, t)[column]), bias, args.time_step_min,
                         args.time_step_max);
}

template <typename T, int kVec, int kTaps>
__global__ void __launch_bounds__(kConvThreads) conv_prefill(Args args, PrefillWorkspace workspace) {
  const Shape& shape = args.shape;
  const int b = static_cast<int>(blockIdx.z), length = real_tokens(args, b);
  const int begin = static_cast<int>(blockIdx.y) * kConvTokens;
  const int end = begin + kConvTokens < length ? begin + kConvTokens : length;
  const int channel_blocks = divide_up(conv_channels(shape), kConvThreads * kVec);
  const int block = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x);
  if (block >= channel_blocks) {
    const int head = (block - channel_blocks) * kConvThreads + lane;
    if (head < shape.heads) write_steps<T>(args, workspace, b, head, begin, end);
    return;
  }
  const int channel = (block * kConvThreads + lane) * kVec;
  if (channel >= conv_channels(shape)) return;
  if (begin == 0) write_conv_state<T, kVec>(args, b, length, channel);
  if (begin >= end) return;
  ConvWindow<T, kVec, kTaps> window;
  window.start(args, b, begin, channel);
  for (int t = begin; t < end; ++t) {
    window.set(kTaps - 1, conv_input<T, kVec>(args, b, t, channel));
    store_pack(workspace.token(shape, b, t) + channel, window.value());
    window.slide();
  }
}

}  // namespace elastic::mamba2
