// Grouped RMSNorm of q = y * silu(z): out = q / sqrt(mean(q^2) + epsilon) * weight, the mean over one group.
#pragma once

#include "maths.h"
#include "prefill_workspace.cuh"
#include "tensors.cuh"

namespace elastic::mamba2 {

constexpr int kNormThreads = 128;

// One block normalises one group of one token. `gated(c)`: the value q of inner channel c.
template <typename T, typename Gated>
ELASTIC_D void normalise_group(const Args& args, int group, T* out, Gated gated) {
  const int channels = group_channels(args.shape);
  const int begin = group * channels, end = begin + channels;
  const int lane = static_cast<int>(threadIdx.x);
  float squares = 0.f;
  for (int c = begin + lane; c < end; c += kNormThreads) {
    const float q = gated(c);
    squares = fmaf(q, q, squares);
  }
  const float mean = block_sum<kNormThreads>(squares) / static_cast<float>(channels);
  const float scale = 1.f / sqrtf(mean + args.epsilon);
  const T* weight = static_cast<const T*>(args.norm_weight);
  for (int c = begin + lane; c < end; c += kNormThreads)
    out[c] = from_float<T>(gated(c) * scale * to_float(weight[c]));
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
