// Grouped RMSNorm of q = y * silu(z): out = q / sqrt(mean(q^2) + epsilon) * weight, the mean over one group.
#pragma once

#include "maths.h"
#include "prefill_workspace.cuh"
#include "views.cuh"

namespace elastic::mamba2 {

constexpr int kNormThreads = 128;
// Values a thread keeps between the two passes: groups of up to 1536 channels are read once.
constexpr int kNormHeld = 12;

// Where the values q of a group come from in a prefill: y of the scan, gated here.
template <typename T, int kVec>
struct GatedValues {
  struct Raw {
    Pack<float, kVec> y;
    Pack<T, kVec> z;
  };
  Input<float> y;
  Input<T> z;

  ELASTIC_D Raw load(int c) const { return {y.template pack<kVec>(c), z.template pack<kVec>(c)}; }
  ELASTIC_D static Pack<float, kVec> value(const Raw& raw) {
    Pack<float, kVec> q;
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) q.at[v] = raw.y.at[v] * silu(to_float(raw.z.at[v]));
    return q;
  }
};

// Or gated before, in the place where they go: each is read before it is written, by one thread, and so is no Input.
template <typename T, int kVec>
struct ReadyValues {
  using Raw = Pack<T, kVec>;
  const T* q;

  ELASTIC_D Raw load(int c) const { return load_pack<T, kVec>(q + c); }
  ELASTIC_D static Pack<float, kVec> value(const Raw& raw) {
    Pack<float, kVec> q;
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) q.at[v] = to_float(raw.at[v]);
    return q;
  }
};

template <int kVec>
ELASTIC_D float sum_of_squares(const Pack<float, kVec>& q, float sum) {
  ELASTIC_UNROLL
  for (int v = 0; v < kVec; ++v) sum = fmaf(q.at[v], q.at[v], sum);
  return sum;
}

template <typename T, int kVec>
ELASTIC_D void store_scaled(T* out, const Pack<float, kVec>& q, float scale, const Pack<T, kVec>& weight) {
  Pack<T, kVec> scaled;
  ELASTIC_UNROLL
  for (int v = 0; v < kVec; ++v) scaled.at[v] = from_float<T>(q.at[v] * scale * to_float(weight.at[v]));
  store_pack(out, scaled);
}

// One block normalises the `channels` values of one group. Values: as GatedValues.
template <int kVec, typename T, typename Values>
ELASTIC_D void normalise_group(const Values& values, Input<T> weight, T* out, int channels, float epsilon) {
  constexpr int kPacks = kNormHeld / kVec, kStride = kNormThreads * kVec;
  const int first = static_cast<int>(threadIdx.x) * kVec, rest = first + kPacks * kStride;

  // Load. All of it is under way before the first value is waited for. Past the group's end a thread loads the group's
  // first channels: at the end of a branch around the loads it would wait for them.
  typename Values::Raw raw[kPacks];
  Pack<T, kVec> weights[kPacks];
  ELASTIC_UNROLL
  for (int i = 0; i < kPacks; ++i) {
    const int c = first + i * kStride < channels ? first + i * kStride : 0;
    raw[i] = values.load(c);
    weights[i] = weight.template pack<kVec>(c);
  }

  // Compute.
  Pack<float, kVec> held[kPacks];
  float squares = 0.f;
  ELASTIC_UNROLL
  for (int i = 0; i < kPacks; ++i) {
    held[i] = Values::value(raw[i]);
    if (first + i * kStride < channels) squares = sum_of_squares(held[i], squares);
  }
  for (int c = rest; c < channels; c += kStride) squares = sum_of_squares(Values::value(values.load(c)), squares);
  const float mean = block_sum<kNormThreads>(squares) / static_cast<float>(channels);
  const float scale = 1.f / sqrtf(mean + epsilon);

  // Store.
  ELASTIC_UNROLL
  for (int i = 0; i < kPacks; ++i) {
    const int c = first + i * kStride;
    if (c < channels) store_scaled(out + c, held[i], scale, weights[i]);
  }
  for (int c = rest; c < channels; c += kStride)
    store_scaled(out + c, Values::value(values.load(c)), scale, weight.template pack<kVec>(c));
}

// Grid (T*G, B). The groups of a token lie beside each other, and the last token comes first: of what the scan wrote, the
// end is still in the second level of the cache, and is overwritten there before it has gone to memory.
struct NormPlace {
  int b, token, group;
};
ELASTIC_D NormPlace norm_place(const Shape& shape) {
  const int place = static_cast<int>(blockIdx.x), token = place / shape.groups;
  return {static_cast<int>(blockIdx.y), shape.tokens - 1 - token, place - token * shape.groups};
}

// Rows at and past the length are left as they are. kVec channels are one access.
template <typename T, int kVec>
__global__ void __launch_bounds__(kNormThreads) gated_norm(Args args, PrefillWorkspace workspace) {
  const Shape& shape = args.shape;
  const auto [b, token, group] = norm_place(shape);
  const int channels = group_channels(shape), first = group * channels;
  if (token >= real_tokens(args, b)) return;
  const GatedValues<T, kVec> values = {Input<float>(workspace.token(shape, b, token) + first),
                                       TokenView<T>(args, b, token).z.from(first)};
  normalise_group<kVec>(values, Input<T>(args.norm_weight).from(first), output_row<T>(args, b, token) + first, channels,
                        args.epsilon);
}

// The same of q that lies in args.y.
template <typename T, int kVec>
__global__ void __launch_bounds__(kNormThreads) norm_in_place(Args args) {
  const auto [b, token, group] = norm_place(args.shape);
  const int channels = group_channels(args.shape), first = group * channels;
  if (token >= real_tokens(args, b)) return;
  T* const q = output_row<T>(args, b, token) + first;
  normalise_group<kVec>(ReadyValues<T, kVec>{q}, Input<T>(args.norm_weight).from(first), q, channels, args.epsilon);
}

}  // namespace elastic::mamba2
