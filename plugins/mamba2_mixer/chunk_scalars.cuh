// What chunk_prefill knows of each token of a chunk, and the unit of its state: all that depends on dt.
#pragma once

#include "../common/device.cuh"
#include "limits.h"
#include "maths.h"

namespace elastic::mamba2 {

constexpr int kPart = 16;  // rows and columns of the pieces that a warp multiplies

// What is known of each token of the chunk that is being computed.
enum class Scalar {
  kCum,         // log2 of the decay from the chunk's start through the token
  kWeight,      // dt, and the units of x and B
  kToPartEnd,   // kWeight, decayed to the end of the token's 16
  kToChunkEnd,  // kWeight, decayed to the end of the chunk, in the unit of the next state
  kUnit,        // 1 / the unit of the token's row of weighted products
  kCarry,       // decay and unit of what comes from the state, in the row's unit
  kOut,         // the unit of C and the row's
  kSkip,        // D, and the unit of x
  kCount
};
class ChunkScalars {
 public:
  static constexpr int kFloats = static_cast<int>(Scalar::kCount) * kChunk;
  ELASTIC_D explicit ChunkScalars(float* first) : first_(first) {}
  ELASTIC_D float& at(Scalar what, int token) const { return first_[static_cast<int>(what) * kChunk + token]; }

 private:
  float* first_;
};

// The state's unit: accumulators times `unit` are the state, whose values are below `bound`.
struct StateUnit {
  float unit, bound;

  // With values up to 2^15 in that unit: float16 has one more power of two, for what rounding adds.
  ELASTIC_D static float of(float bound) { return power_of_two_above(fmaxf(bound, 0x1p-100f)) * 0x1p-15f; }
};

// The sum, or the maximum, over lanes [0, lane].
template <typename Combine>
ELASTIC_D float scan_lanes(float value, Combine combine) {
  ELASTIC_UNROLL
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const float before = __shfl_up_sync(kAllLanes, value, distance);
    if (static_cast<int>(threadIdx.x) % kWarp >= distance) value = combine(value, before);
  }
  return value;
}
// The lane below's value; `none` in lane 0.
ELASTIC_D float lane_below(float value, float none) {
  const float before = __shfl_up_sync(kAllLanes, value, 1);
  return threadIdx.x % kWarp == 0 ? none : before;
}

// Two tokens a lane: everything that depends on dt. Every warp computes it, so that none waits for another to know the
// next unit; one writes the scalars. The chain of shuffles is waited for: ptxas does not overlap it with the products
// with the state. The state's unit becomes that of the next state; returns what multiplies the accumulators meanwhile.
ELASTIC_D float chunk_decays(const float* raw, float log2_a, float skip, const ChunkScalars& scalars,
                             StateUnit& state) {
  constexpr int kTokens = kChunk / kWarp, kPartLanes = kPart / kTokens;
  static_assert(kTokens == 2, "a pair of tokens a lane");
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float cum[kTokens], weight[kTokens], largest[kTokens];

  ELASTIC_UNROLL
  for (int i = 0; i < kTokens; ++i) {
    const int token = lane * kTokens + i;
    cum[i] = raw[token] * log2_a;
    weight[i] = raw[token] * raw[kChunk + token] * raw[2 * kChunk + token];
    largest[i] = fabsf(weight[i]);
  }
  const float through = scan_lanes(cum[0] + cum[1], [](float a, float b) { return a + b; });
  cum[0] += lane_below(through, 0.f);
  cum[1] = through;
  const float most = scan_lanes(fmaxf(largest[0], largest[1]), [](float a, float b) { return fmaxf(a, b); });
  largest[0] = fmaxf(largest[0], lane_below(most, 0.f));
  largest[1] = most;

  const float part_end = __shfl_sync(kAllLanes, cum[1], lane | (kPartLanes - 1));
  const float chunk_end = __shfl_sync(kAllLanes, cum[1], kWarp - 1), decay = quick_exp2(chunk_end);
  // |x| and |B| are at most 1 in their units: no token adds more to a value of the state than the largest weight is.
  const float heaviest = __shfl_sync(kAllLanes, most, kWarp - 1);
  const float bound = fmaf(decay, state.bound, kChunk * heaviest), unit = StateUnit::of(bound);

  const float into_unit = inverse_power(unit);
  if (threadIdx.x < kWarp) {
    ELASTIC_UNROLL
    for (int i = 0; i < kTokens; ++i) {
      const int token = lane * kTokens + i;
      // The floors keep the inverse, and what the state brings, finite.
      const float row_unit = power_of_two_above(fmaxf(largest[i], fmaxf(state.unit * 0x1p-80f, 0x1p-100f)));
      const float inverse = inverse_power(row_unit);
      scalars.at(Scalar::kCum, token) = cum[i];
      scalars.at(Scalar::kWeight, token) = weight[i];
      scalars.at(Scalar::kToPartEnd, token) = quick_exp2(fminf(part_end - cum[i], 0.f)) * weight[i];
      scalars.at(Scalar::kToChunkEnd, token) = quick_exp2(fminf(chunk_end - cum[i], 0.f)) * weight[i] * into_unit;
      scalars.at(Scalar::kUnit, token) = inverse;
      scalars.at(Scalar::kCarry, token) = quick_exp2(cum[i]) * (state.unit * inverse);
      scalars.at(Scalar::kOut, token) = raw[3 * kChunk + token] * row_unit;
      scalars.at(Scalar::kSkip, token) = skip * raw[kChunk + token];
    }
  }
  const float factor = decay * state.unit * into_unit;  // in this order: the units' ratio may be beyond float32
  state = {unit, bound};
  return factor;
}

}  // namespace elastic::mamba2
