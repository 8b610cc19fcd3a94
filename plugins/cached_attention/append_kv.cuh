// The call's keys and values into the caches, at position and after. Grid (parts of a sequence, 2, B): keys, then
// values.
#pragma once

#include "views.cuh"

namespace elastic::attention {

constexpr int kAppendThreads = 256;

// Pieces of kHeadDimStep elements, 16 bytes each, that a sequence's call brings.
ELASTIC_HD int append_pieces(const Shape& shape) { return shape.tokens * (key_width(shape) / kHeadDimStep); }

template <typename T>
__global__ __launch_bounds__(kAppendThreads) void append_kv(Args args) {
  using Piece = Pack<T, kHeadDimStep>;
  const Shape& shape = args.shape;
  const int piece = static_cast<int>(blockIdx.x * kAppendThreads + threadIdx.x), b = static_cast<int>(blockIdx.z);
  const bool values = blockIdx.y == 1;
  if (piece >= append_pieces(shape)) return;
  const int of_head = shape.head_dim / kHeadDimStep, of_token = key_width(shape) / kHeadDimStep;
  const int token = piece / of_token, group = piece % of_token / of_head, column = piece % of_head * kHeadDimStep;
  const Input<T> from(values ? args.value : args.key);
  T* const to = static_cast<T*>(values ? args.value_cache : args.key_cache);

  const int row = first_cache_row(args, b) + token;
  const Piece loaded = load_constant(reinterpret_cast<const Piece*>(
      from.address(new_offset(shape, b, group, token) + column)));
  if (row >= 0 && row < shape.context) store_pack(to + cache_offset(shape, b, group, row) + column, loaded);
}

}  // namespace elastic::attention
