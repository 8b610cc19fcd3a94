// y of a row from the parts that the blocks of its splits left. Grid (rows, G, B).
#pragma once

#include "attend_softmax.cuh"
#include "parts.cuh"

namespace elastic::attention {

constexpr int kMergeThreads = 128;
constexpr int kMergeVector = 4;

// What the block's threads know of the row's parts.
struct MergeShares {
  int count;     // up to the last part with any weight: all before it had cache rows, so that their sums are written
  float weight;  // of all, relative to the best
};

// factors[s]: what part s counts, for s below `count`. Every warp computes the same.
ELASTIC_D MergeShares share_parts(const Args& args, const Cut& cut, const Parts& parts, int row, float* factors) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, b = static_cast<int>(blockIdx.z);
  const auto at = [&](int split) {
    return part_row(args.shape, cut, split, b, static_cast<int>(blockIdx.y), row);
  };
  float best = -INFINITY;
  for (int split = lane; split < cut.splits; split += kWarp) best = fmaxf(best, parts.best[at(split)]);
  ELASTIC_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) best = fmaxf(best, __shfl_xor_sync(kAllLanes, best, mask));
  float weight = 0.f, count = 0.f;
  for (int split = lane; split < cut.splits; split += kWarp) {
    const float factor = power_below(parts.best[at(split)], best), own = parts.weight[at(split)];
    weight = fmaf(factor, own, weight);
    if (own != 0.f) count = static_cast<float>(split + 1);  // an earlier one may have weight 0
    if (threadIdx.x < kWarp) factors[split] = factor;
  }
  ELASTIC_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    weight += __shfl_xor_sync(kAllLanes, weight, mask);
    count = fmaxf(count, __shfl_xor_sync(kAllLanes, count, mask));
  }
  return {static_cast<int>(count), weight};
}

template <typename T>
__global__ __launch_bounds__(kMergeThreads) void merge(Args args, Cut cut, Parts parts) {
  using Sums = Pack<float, kMergeVector>;
  ELASTIC_SHARED(float, factors, kMaxSplits);
  ELASTIC_SHARED(float, joined, kMergeThreads * kMergeVector);
  const int row = static_cast<int>(blockIdx.x), group = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const int thread = static_cast<int>(threadIdx.x), columns = args.shape.head_dim / kMergeVector;
  const int sharers = kMergeThreads / columns, sharer = thread / columns, column = thread % columns * kMergeVector;
  const MergeShares shares = share_parts(args, cut, parts, row, factors);
  __syncthreads();  // the factors

  Sums sums = {};
  if (sharer < sharers) {
    ELASTIC_UNROLL_4
    for (int split = sharer; split < shares.count; split += sharers) {
      const int64_t part = part_row(args.shape, cut, split, b, group, row);
      const Sums loaded = load_pack<float, kMergeVector>(parts.sums + part * args.shape.head_dim + column);
      ELASTIC_UNROLL
      for (int i = 0; i < kMergeVector; ++i) sums.at[i] = fmaf(factors[split], loaded.at[i], sums.at[i]);
    }
    store_pack(joined + thread * kMergeVector, sums);
  }
  __syncthreads();  // all threads' sums
  if (sharer > 0) return;
  for (int s = 1; s < sharers; ++s) {
    const Sums other = load_pack<float, kMergeVector>(joined + (s * columns + thread) * kMergeVector);
    ELASTIC_UNROLL
    for (int i = 0; i < kMergeVector; ++i) sums.at[i] += other.at[i];
  }
  const float share = shares.weight == 0.f ? 0.f : 1.f / shares.weight;
  Pack<T, kMergeVector> out;
  ELASTIC_UNROLL
  for (int i = 0; i < kMergeVector; ++i) out.at[i] = from_float<T>(sums.at[i] * share);
  store_pack(static_cast<T*>(args.y) + row_offset(args.shape, b, group, row) + column, out);
}

}  // namespace elastic::attention
