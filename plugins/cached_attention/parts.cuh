// What the blocks that share a tile's cache rows hand to `merge`, in float32: for each row the sum of its values, each
// with the weight 2^(score - best), the sum of those weights, and `best`, the greatest score (in powers of two). A
// block whose share of the cache is empty leaves weight 0, best minus infinity, and sums that are not written.
#pragma once

#include "views.cuh"

namespace elastic::attention {

struct Parts {
  float* sums;    // [rows, D]
  float* best;    // [rows]
  float* weight;  // [rows]
};

inline Parts parts_of(const Args& args) {
  float* const best = args.workspace + static_cast<int64_t>(kMaxPartRows) * args.shape.head_dim;
  return {args.workspace, best, best + kMaxPartRows};
}

// The row of the parts: below kMaxPartRows, which choose_cut sees to.
ELASTIC_HD int part_row(const Shape& shape, const Cut& cut, int split, int b, int group, int row) {
  return ((split * shape.batch + b) * shape.key_value_heads + group) * (cut.tiles * cut.tile_rows) + row;
}

}  // namespace elastic::attention
