// The softmax of scores that come tile by tile: with each tile the greatest score so far may grow, and what was summed
// with the old one shrinks. Scores are exponents of two, so that one multiplication scales and one instruction raises.
#pragma once

#include <cmath>

#include "../common/tile.cuh"
#include "attend_stage.cuh"

namespace elastic::attention {

constexpr float kLog2OfE = 1.4426950408889634f;

// Of a row: the greatest score and the sum of 2^(score - best); minus infinity and 0 where it saw no key.
struct RowWeight {
  float best, weight;
};

// 2^(score - best), 0 for a score of minus infinity, even where that is the best: their difference would be no number.
ELASTIC_D float power_below(float score, float best) { return quick_exp2(score - (best == -INFINITY ? 0.f : best)); }

// The last cache row that each of the lane's two rows sees.
struct RowLimits {
  int last[2];

  ELASTIC_D RowLimits(const Shape& shape, const AttendPlace& place, int warp_row) {
    ELASTIC_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + Accumulator::row(2 * half), known = row < place.rows ? row : place.rows - 1;
      last[half] = seen_rows(shape, place.start, (place.first_row + known) / group_heads(shape)) - 1;
    }
  }
};

// Minus infinity where a row does not see the key. `first`: the tile's first cache row.
template <typename Traits>
ELASTIC_D void hide_unseen(Accumulator (&scores)[Traits::kWarpKeys / 8], int first, const RowLimits& limits) {
  ELASTIC_UNROLL
  for (int n = 0; n < Traits::kWarpKeys / 8; ++n)
    ELASTIC_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int key = first + Traits::warp_key() + n * 8 + Accumulator::column(i);
      if (key > limits.last[i / 2]) scores[n].at[i] = -INFINITY;
    }
}

// The lane's two rows, as far as they have come. `weight_` is that of the lane's own keys.
class RowState {
 public:
  // Scores become weights; the sums so far shrink to the new best. `scale`: of a score to an exponent of two, above 0.
  template <typename Traits>
  ELASTIC_D void weigh(Accumulator (&scores)[Traits::kWarpKeys / 8], Accumulator (&sums)[Traits::kDim / 8],
                       float scale) {
    ELASTIC_UNROLL
    for (int half = 0; half < 2; ++half) {
      float best = -INFINITY;
      ELASTIC_UNROLL
      for (int n = 0; n < Traits::kWarpKeys / 8; ++n)
        best = fmaxf(best, fmaxf(scores[n].at[2 * half], scores[n].at[2 * half + 1]));
      best = fmaxf(best_[half], best_of_four_lanes(best) * scale);
      const float shrink = power_below(best_[half], best), anchor = best == -INFINITY ? 0.f : best;
      best_[half] = best;
      weight_[half] *= shrink;
      ELASTIC_UNROLL
      for (int n = 0; n < Traits::kDim / 8; ++n) {
        sums[n].at[2 * half] *= shrink;
        sums[n].at[2 * half + 1] *= shrink;
      }
      ELASTIC_UNROLL
      for (int n = 0; n < Traits::kWarpKeys / 8; ++n)
        ELASTIC_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[n].at[i] = quick_exp2(fmaf(scores[n].at[i], scale, -anchor));
          weight_[half] += scores[n].at[i];
        }
    }
  }

  // Over the keys of all four lanes that share the row.
  ELASTIC_D RowWeight total(int half) const {
    float weight = weight_[half];
    ELASTIC_UNROLL
    for (int mask = 2; mask > 0; mask /= 2) weight += __shfl_xor_sync(kAllLanes, weight, mask);
    return {best_[half], weight};
  }

 private:
  ELASTIC_D static float best_of_four_lanes(float best) {
    ELASTIC_UNROLL
    for (int mask = 2; mask > 0; mask /= 2) best = fmaxf(best, __shfl_xor_sync(kAllLanes, best, mask));
    return best;
  }

  float best_[2] = {-INFINITY, -INFINITY};
  float weight_[2] = {0.f, 0.f};
};

}  // namespace elastic::attention
