// Where a call's tensors are, and what part of them belongs to whom. A *row* is one query head of one token: the rows
// of a key and value head are numbered token by token, so that a tile of rows shares every key and value it loads.
//
// Offsets of a sequence, a head or a cache row are int64, those inside of one are int: check_shape in select.cpp sees
// to that.
#pragma once

#include "../common/device.cuh"
#include "limits.h"
#include "params.h"
#include "select.h"

namespace elastic::attention {

ELASTIC_HD int rows_of(const Shape& shape) { return shape.tokens * group_heads(shape); }

// Of element 0 of a row in query and y.
ELASTIC_HD int64_t row_offset(const Shape& shape, int b, int group, int row) {
  const int heads = group_heads(shape), token = row / heads, head = group * heads + row % heads;
  return (static_cast<int64_t>(b) * shape.tokens + token) * query_width(shape) + head * shape.head_dim;
}
// Of element 0 of a head of one token in key and value.
ELASTIC_HD int64_t new_offset(const Shape& shape, int b, int group, int token) {
  return (static_cast<int64_t>(b) * shape.tokens + token) * key_width(shape) + group * shape.head_dim;
}
// Of element 0 of a head's row in the caches.
ELASTIC_HD int64_t cache_offset(const Shape& shape, int b, int group, int row) {
  return ((static_cast<int64_t>(b) * shape.key_value_heads + group) * shape.context + row) * shape.head_dim;
}

// The cache row of token 0, so near to the caches' ends that sums with a call's tokens are whole, whatever the tensor
// holds: a token before the first row or past the last one stays there.
ELASTIC_D int first_cache_row(const Args& args, int b) {
  const int64_t position = Input<int64_t>(args.position)[b];
  if (position < -kMaxTokens) return -kMaxTokens;
  return position > args.shape.context ? args.shape.context : static_cast<int>(position);
}

}  // namespace elastic::attention
