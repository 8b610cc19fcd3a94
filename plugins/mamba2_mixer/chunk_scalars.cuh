// What chunk_prefill knows of each token of a chunk, and the unit of its state: all that depends on dt.
#pragma once

#include "../common/device.cuh"
#include "limits.h"
#include "maths.h"

namespace elastic::mamba2 {

constexpr int kPart = 16;                    // rows and columns of the pieces that a warp multiplies
constexpr int kLaneTokens = kChunk / kWarp;  // of a chunk, a lane
constexpr int kRawScalars = 4;               // of a token, from the workspace: dt, and the units of x, B and C

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
// Those from kOut on have two stages: y is stored when the next chunk's are written already.
class ChunkScalars {
 public:
  static constexpr int kStaged = static_cast<int>(Scalar::kCount) - static_cast<int>(Scalar::kOut);
  static constexpr int kOfTokens = (static_cast<int>(Scalar::kCount) + kStaged) * kChunk, kFloats = kOfTokens + 2;
  ELASTIC_D explicit ChunkScalars(float* first, int stage = 0) : first_(first), staged_(stage * kStaged * kChunk) {}
  ELASTIC_D float& at(Scalar what, int token) const {
    return first_[(what >= Scalar::kOut ? staged_ : 0) + static_cast<int>(what) * kChunk + token];
  }
  ELASTIC_D float& factor() const { return first_[kOfTokens]; }    // of the state, in the chunk
  ELASTIC_D float& unit() const { return first_[kOfTokens + 1]; }  // of the state after it

 private:
  float* first_;
  int staged_;
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

// What a chunk's scalars are made of, in the registers of a warp, two tokens a lane: everything that depends on dt. The
// chain of shuffles is waited for: ptxas does not overlap it with the products with the state.
class ChunkDecays {
 public:
  // Those of the chunk whose raw scalars are given. The state's unit becomes that of the state after the chunk.
  ELASTIC_D void reckon(const float* raw, float log2_a, StateUnit& state) {
    static_assert(kLaneTokens == 2, "a pair of tokens a lane");
    ELASTIC_UNROLL
    for (int i = 0; i < kLaneTokens; ++i) {
      const int token = lane() * kLaneTokens + i;
      cum_[i] = raw[token] * log2_a;
      weight_[i] = raw[token] * raw[kChunk + token] * raw[2 * kChunk + token];
      largest_[i] = fabsf(weight_[i]);
    }
    const float through = scan_lanes(cum_[0] + cum_[1], [](float a, float b) { return a + b; });
    cum_[0] += lane_below(through, 0.f);
    cum_[1] = through;
    const float most = scan_lanes(fmaxf(largest_[0], largest_[1]), [](float a, float b) { return fmaxf(a, b); });
    largest_[0] = fmaxf(largest_[0], lane_below(most, 0.f));
    largest_[1] = most;

    chunk_end_ = __shfl_sync(kAllLanes, cum_[1], kWarp - 1);
    const float decay = quick_exp2(chunk_end_);
    // |x| and |B| are at most 1 in their units: no token adds more to a value of the state than the largest weight is.
    const float heaviest = __shfl_sync(kAllLanes, most, kWarp - 1);
    const float bound = fmaf(decay, state.bound, kChunk * heaviest), unit = StateUnit::of(bound);
    into_unit_ = inverse_power(unit);
    factor_ = decay * state.unit * into_unit_;  // in this order: the units' ratio may be beyond float32
    before_ = state.unit;
    state = {unit, bound};
  }
  // What multiplies the state's accumulators in the chunk.
  ELASTIC_D float factor() const { return factor_; }

  ELASTIC_D void write(const float* raw, float skip, const ChunkScalars& scalars) const {
    constexpr int kPartLanes = kPart / kLaneTokens;
    const float part_end = __shfl_sync(kAllLanes, cum_[1], lane() | (kPartLanes - 1));
    ELASTIC_UNROLL
    for (int i = 0; i < kLaneTokens; ++i) {
      const int token = lane() * kLaneTokens + i;
      // The floors keep the inverse, and what the state brings, finite.
      const float row_unit = power_of_two_above(fmaxf(largest_[i], fmaxf(before_ * 0x1p-80f, 0x1p-100f)));
      const float inverse = inverse_power(row_unit);
      scalars.at(Scalar::kCum, token) = cum_[i];
      scalars.at(Scalar::kWeight, token) = weight_[i];
      scalars.at(Scalar::kToPartEnd, token) = quick_exp2(fminf(part_end - cum_[i], 0.f)) * weight_[i];
      scalars.at(Scalar::kToChunkEnd, token) = quick_exp2(fminf(chunk_end_ - cum_[i], 0.f)) * weight_[i] * into_unit_;
      scalars.at(Scalar::kUnit, token) = inverse;
      scalars.at(Scalar::kCarry, token) = quick_exp2(cum_[i]) * (before_ * inverse);
      scalars.at(Scalar::kOut, token) = raw[3 * kChunk + token] * row_unit;
      scalars.at(Scalar::kSkip, token) = skip * raw[kChunk + token];
    }
    if (lane() == 0) scalars.factor() = factor_, scalars.unit() = inverse_power(into_unit_);
  }

 private:
  float cum_[kLaneTokens], weight_[kLaneTokens], largest_[kLaneTokens];
  float chunk_end_, into_unit_, factor_, before_;

  ELASTIC_D static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
};

}  // namespace elastic::mamba2
