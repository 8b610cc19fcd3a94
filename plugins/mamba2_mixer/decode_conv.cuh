// The convolution of one token at one channel, and its state moved on from the old buffer to the new one.
#pragma once

#include "maths.h"
#include "views.cuh"

namespace elastic::mamba2 {

// One row's convolution: its token, its states, and the parameters of all channels.
template <typename T>
struct DecodeConvView {
  Input<T> token;         // [dc]
  Input<T> state;         // [K-1, dc]
  Input<T> weight, bias;  // [dc, K], [dc]
  T* fresh;               // [K-1, dc]
  int channels;

  ELASTIC_D DecodeConvView(const Args& args, int b)
      : token(TokenView<T>(args, b, 0).channels),
        state(Input<T>(args.conv_state).from(conv_state_offset(args.shape, b))),
        weight(args.conv_weight),
        bias(args.conv_bias),
        fresh(static_cast<T*>(args.conv_state_out) + conv_state_offset(args.shape, b)),
        channels(conv_channels(args.shape)) {}
};

// What the convolution of kVec neighbouring channels needs, as it was loaded. A row of `projected` may begin anywhere,
// so the token's values are loaded, and kept, one by one: to pack them would be to wait for them. All else is whole
// accesses.
template <typename T, int kVec>
struct TokenTaps {
  static constexpr int kTaps = kDecodeTaps;
  Pack<T, kVec> before[kTaps - 1];
  T token[kVec];
  Pack<T, kTaps> weight[kVec];
  Pack<T, kVec> bias;

  ELASTIC_D void load(const DecodeConvView<T>& view, int channel) {
    ELASTIC_UNROLL
    for (int k = 0; k < kTaps - 1; ++k) before[k] = view.state.template pack<kVec>(k * view.channels + channel);
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) {
      token[v] = view.token[channel + v];
      weight[v] = view.weight.template pack<kTaps>((channel + v) * kTaps);
    }
    bias = view.bias.template pack<kVec>(channel);
  }
  ELASTIC_D Pack<float, kVec> value() const {
    Pack<float, kVec> out;
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) {
      float sum = to_float(bias.at[v]);
      ELASTIC_UNROLL
      for (int k = 0; k < kTaps; ++k) sum = fmaf(to_float(weight[v].at[k]), to_float(input(k, v)), sum);
      out.at[v] = silu(sum);
    }
    return out;
  }
  // The new state of the channels; where the token is not real, the old one bit for bit.
  ELASTIC_D void move_on(const DecodeConvView<T>& view, int channel, bool real) const {
    ELASTIC_UNROLL
    for (int k = 1; k < kTaps; ++k) {
      Pack<T, kVec> kept;
      ELASTIC_UNROLL
      for (int v = 0; v < kVec; ++v) kept.at[v] = real ? input(k, v) : input(k - 1, v);
      store_pack(view.fresh + (k - 1) * view.channels + channel, kept);
    }
  }

 private:
  ELASTIC_D T input(int k, int v) const { return k == kTaps - 1 ? token[v] : before[k].at[v]; }
};

}  // namespace elastic::mamba2
