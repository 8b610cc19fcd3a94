// Grouped RMSNorm of q = y * silu(z): out = q / sqrt(mean(q^2) + epsilon) * weight, the mean over one group.
#pragma once

#include "maths.h"
#include "prefill_workspace.cuh"
#include "tensors.cuh"

namespace elastic::mamba2 {

constexpr int kNormThreads = 128;

constexpr int kNormHeld =
    12;  // values a thread keeps between the two passes: groups of up to 1536 are read once

// One block normalises one group of one token. `gated(c)`: the value q of inner channel c.
template <typename T, typename Gated>
ELASTIC_D void normalise_group(const Args& args, int group, T* out, Gated gated) {
  const int channels = group_channels(args.shape), end = (group + 1) * channels;
  const int first = group * channels + static_cast<int>(threadIdx.x), rest = first + kNormHeld * kNormThreads;
  float held[kNormHeld], squares = 0.f;
  ELASTIC_UNROLL
  for (int i = 0; i < kNormHeld; ++i) {
    const int c = first + i * kNormThreads;
    held[i] = c < end ? gated(c) : 0.f;
  }
  ELASTIC_UNROLL
  for (int i = 0; i < kNormHeld; ++i) squares = fmaf(held[i], held[i], squares);
  for (int c = rest; c < end; c += kNormThreads) squares = fmaf(gated(c), gated(c), squares);
  const float mean = block_sum<kNormThreads>(squares) / static_cast<float>(channels);
  const float scale = 1.f / sqrtf(mean + args.epsilon);
  const auto write = [&](int c, float q) {
    out[c] = from_float<T>(q * scale * to_float(static_cast<const T*>(args.norm_weight)[c]));
  };
  ELASTIC_UNROLL
  for (int i = 0; i < kNormHeld; ++i)
    if (first + i * kNormThreads < end) write(first + i * kNormThreads, held[i]);
  for (int c = rest; c < end; c += kNormThreads) write(c, gated(c));
}

// Grid (T*G, B). Rows at and past the length are left as they are.
template <typename T>
__global__ void __launch_bounds__(kNormThreads) gated_norm(Args args, PrefillWorkspace workspace) {
  const int groups = args.shape.groups, b = static_cast<int>(blockIdx.y);
  const int group = static_cast<int>(blockIdx.x) % groups, token = static_cast<int>(blockIdx.x) / groups;
  if (token >= real_tokens(args, b)) return;
  const T* gate = projected_row<T>(args, b, token);
  const float* y = workspace.token(args.shape, b, token);
  normalise_group(args, group, output_row<T>(args, b, token),
                  [&](int c) { return y[c] * silu(to_float(gate[c])); });
}

}  // namespace elastic::mamba2
