// Causal depthwise convolution and SiLU of all tokens, the new convolution state, and dt.
//
// Grid (channel blocks + head blocks, token tiles, B). A thread keeps the window of its channels in registers and
// slides it over one tile of tokens, a batch of them at a time: a batch is loaded as a whole before any of it is used.
// Channels lie innermost, so neighbours read neighbours. The last blocks of the first grid axis compute dt instead.
#pragma once

#include "maths.h"
#include "prefill_workspace.cuh"
#include "views.cuh"

namespace elastic::mamba2 {

constexpr int kConvThreads = 128;
constexpr int kConvBatch = 8;  // tokens whose loads are under way together
static_assert(kConvTokens % kConvBatch == 0, "a tile is whole batches");

// What a thread reads and writes: kVec channels of row b.
template <typename T, int kVec>
struct ConvView {
  Input<T> tokens;  // of token 0
  Input<T> state;   // of slot 0, the oldest
  Input<T> weight;  // [kVec, K]
  Input<T> bias;
  T* fresh;    // slot 0 of the new state
  float* out;  // of token 0
  int width, channels;
  int pitch;  // from token to token of `projected`

  ELASTIC_D ConvView(const Args& args, const PrefillWorkspace& workspace, int b, int channel)
      : tokens(TokenView<T>(args, b, 0).channels.from(channel)),
        state(Input<T>(args.conv_state).from(conv_state_offset(args.shape, b) + channel)),
        weight(Input<T>(args.conv_weight).from(static_cast<int64_t>(channel) * args.shape.conv_width)),
        bias(Input<T>(args.conv_bias).from(channel)),
        fresh(static_cast<T*>(args.conv_state_out) + conv_state_offset(args.shape, b) + channel),
        out(workspace.token(args.shape, b, 0) + channel),
        width(args.shape.conv_width),
        channels(conv_channels(args.shape)),
        pitch(projected_width(args.shape)) {}

  ELASTIC_D const T* address(int t) const { return tokens.address(static_cast<int64_t>(t) * pitch); }
  ELASTIC_D Pack<T, kVec> token(int t) const { return Input<T>(address(t)).template pack<kVec>(0); }
  // Input t of the convolution; t < 0 lies in the state. An address is chosen, not a load.
  ELASTIC_D Pack<T, kVec> input(int t) const {
    const int64_t slot = static_cast<int64_t>(width - 1 + t) * channels;
    return Input<T>(t >= 0 ? address(t) : state.address(slot)).template pack<kVec>(0);
  }
};

// The last K-1 raw inputs: those of this call, and of the old state where the call was shorter.
template <typename T, int kVec>
ELASTIC_D void write_conv_state(const ConvView<T, kVec>& view, int length) {
  Pack<T, kVec> last[kMaxTaps - 1];
  ELASTIC_UNROLL
  for (int k = 0; k < kMaxTaps - 1; ++k)
    if (k < view.width - 1) last[k] = view.input(length - (view.width - 1) + k);
  ELASTIC_UNROLL
  for (int k = 0; k < kMaxTaps - 1; ++k)
    if (k < view.width - 1) store_pack(view.fresh + k * view.channels, last[k]);
}

// Right-aligned in kTaps slots: slot kTaps-1 meets the current token. Slots before kTaps-K stay unused.
template <typename T, int kVec, int kTaps>
struct ConvWindow {
  float weight[kTaps][kVec], input[kTaps][kVec], bias[kVec];
  int unused;

  ELASTIC_D void start(const ConvView<T, kVec>& view, int first_token) {
    constexpr bool kWhole = kVec > 1;  // K is kTaps, and the weights of the channels are one piece
    unused = kWhole ? 0 : kTaps - view.width;
    // Load.
    Pack<T, kTaps> taps[kVec] = {};
    Pack<T, kVec> before[kTaps - 1] = {};
    const Pack<T, kVec> biases = view.bias.template pack<kVec>(0);
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) taps[v] = load_taps<kWhole>(view, v);
    ELASTIC_UNROLL
    for (int k = 0; k < kTaps - 1; ++k)
      if (k >= unused) before[k] = view.input(first_token - (kTaps - 1) + k);
    // Compute.
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) {
      bias[v] = to_float(biases.at[v]);
      ELASTIC_UNROLL
      for (int k = 0; k < kTaps; ++k) weight[k][v] = to_float(taps[v].at[k]);
    }
    ELASTIC_UNROLL
    for (int k = 0; k < kTaps - 1; ++k) set(k, before[k]);
  }
  ELASTIC_D void set(int k, const Pack<T, kVec>& values) {
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) input[k][v] = to_float(values.at[v]);
  }
  ELASTIC_D void set_words(int k, const Pack<uint32_t, kVec * static_cast<int>(sizeof(T)) / 4>& words) {
    const Pack<float, kVec> values = floats_of_words<T, kVec>(words);
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) input[k][v] = values.at[v];
  }
  ELASTIC_D Pack<float, kVec> sum() const {
    Pack<float, kVec> out;
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) {
      out.at[v] = bias[v];
      ELASTIC_UNROLL
      for (int k = 0; k < kTaps; ++k)
        if (k >= unused) out.at[v] = fmaf(weight[k][v], input[k][v], out.at[v]);
    }
    return out;
  }
  ELASTIC_D Pack<float, kVec> value() const {
    Pack<float, kVec> out = sum();
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) out.at[v] = silu(out.at[v]);
    return out;
  }
  ELASTIC_D void slide() {
    ELASTIC_UNROLL
    for (int k = 0; k + 1 < kTaps; ++k) {
      ELASTIC_UNROLL
      for (int v = 0; v < kVec; ++v) input[k][v] = input[k + 1][v];
    }
  }

 private:
  template <bool kWhole>
  ELASTIC_D Pack<T, kTaps> load_taps(const ConvView<T, kVec>& view, int v) const {
    if constexpr (kWhole) {
      return view.weight.template pack<kTaps>(v * kTaps);
    } else {
      Pack<T, kTaps> taps = {};
      ELASTIC_UNROLL
      for (int k = 0; k < kTaps; ++k)
        if (k >= unused) taps.at[k] = view.weight[v * view.width + k - unused];
      return taps;
    }
  }
};

// Tokens [begin, end) of the thread's channels.
template <typename T, int kVec, int kTaps>
ELASTIC_D void convolve_tile(const ConvView<T, kVec>& view, int begin, int end) {
  ConvWindow<T, kVec, kTaps> window;
  window.start(view, begin);
  for (int first = begin; first < end; first += kConvBatch) {
    Pack<T, kVec> batch[kConvBatch];
    ELASTIC_UNROLL
    for (int i = 0; i < kConvBatch; ++i) batch[i] = view.token(first + i < end ? first + i : end - 1);
    ELASTIC_UNROLL
    for (int i = 0; i < kConvBatch; ++i) {
      window.set(kTaps - 1, batch[i]);
      if (first + i < end) store_pack(view.out + static_cast<int64_t>(first + i) * view.channels, window.value());
      window.slide();
    }
  }
}

// dt of one head: of the first kConvTokens tokens of [begin, end), which are loaded together.
template <typename T>
ELASTIC_D void write_dt(const Args& args, const PrefillWorkspace& workspace, int b, int head, int begin, int end) {
  const Input<T> raw = TokenView<T>(args, b, begin).dt.from(head);
  float* const out = workspace.dt_of(args.shape, b, head);
  const HeadParam bias(args, args.dt_bias, head);
  T values[kConvTokens];
  ELASTIC_UNROLL
  for (int i = 0; i < kConvTokens; ++i) {
    const int64_t token = begin + i < end ? i : 0;
    values[i] = raw.from(token * projected_width(args.shape))[0];
  }
  ELASTIC_UNROLL
  for (int i = 0; i < kConvTokens; ++i)
    if (begin + i < end)
      out[begin + i] =
          time_step(to_float(values[i]), bias.value(args.head_param), args.time_step_min, args.time_step_max);
}

// A block's tokens: [begin, end) of row b. The last tokens come first: they are what in_proj wrote last, and so still in
// the second level of the cache, where the first ones are when the scan begins with them.
struct ConvTile {
  int b, length, begin, end;
};
ELASTIC_D ConvTile conv_tile(const Args& args, int tokens) {
  const int b = static_cast<int>(blockIdx.z), length = real_tokens(args, b);
  const int begin = static_cast<int>(gridDim.y - 1 - blockIdx.y) * tokens;
  return {b, length, begin, begin + tokens < length ? begin + tokens : length};
}

// dt of the block's tokens and heads, one a thread.
template <typename T>
ELASTIC_D void write_dt_of_block(const Args& args, const PrefillWorkspace& workspace, const ConvTile& tile, int block) {
  const int head = block * kConvThreads + static_cast<int>(threadIdx.x);
  if (head >= args.shape.heads) return;
  for (int begin = tile.begin; begin < tile.end; begin += kConvTokens)
    write_dt<T>(args, workspace, tile.b, head, begin, tile.end);
}

template <typename T, int kVec, int kTaps>
__global__ void __launch_bounds__(kConvThreads, 5) conv_prefill(Args args, PrefillWorkspace workspace) {
  const ConvTile tile = conv_tile(args, kConvTokens);
  const int channels = conv_channels(args.shape), channel_blocks = divide_up(channels, kConvThreads * kVec);
  const int block = static_cast<int>(blockIdx.x);
  if (block >= channel_blocks) return write_dt_of_block<T>(args, workspace, tile, block - channel_blocks);
  const int channel = (block * kConvThreads + static_cast<int>(threadIdx.x)) * kVec;
  if (channel >= channels) return;
  const ConvView<T, kVec> view(args, workspace, tile.b, channel);
  if (tile.begin == 0) write_conv_state(view, tile.length);
  if (tile.begin < tile.end) convolve_tile<T, kVec, kTaps>(view, tile.begin, tile.end);
}

}  // namespace elastic::mamba2
