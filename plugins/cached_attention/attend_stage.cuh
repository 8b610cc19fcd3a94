// Which part of a call a block of `attend` computes, and how its operands come to shared memory.
#pragma once

#include "../common/tile.cuh"
#include "views.cuh"

namespace elastic::attention {

constexpr int kAttendWarps = 4;
constexpr int kAttendThreads = kAttendWarps * kWarp;

// kDim: the head's elements with padding; kRows: of a tile, 16 or 64.
template <typename T, int kDim_, int kRows_>
struct AttendTraits {
  using Type = T;
  static constexpr int kDim = kDim_, kRows = kRows_;
  static constexpr int kRowWarps = kRows / 16, kKeyWarps = kAttendWarps / kRowWarps;
  // Keys of a tile. Half as many where the sums take half of a thread's registers.
  static constexpr int kKeys = kDim > 128 && kKeyWarps == 1 ? 32 : 64;
  static constexpr int kWarpKeys = kKeys / kKeyWarps;
  static constexpr bool kQueryInRegisters = kDim <= 128;
  // That a multiprocessor has registers for at the same time: more of them would make some card spill.
  static constexpr int kBlocks = kDim <= 64 || (kDim <= 128 && kKeyWarps > 1) ? 3 : 2;
  using Tile = SharedTile<T, kKeys, kDim>;
  using QueryTile = SharedTile<T, kRows, kDim>;
  // A query that goes on to registers comes through the values' buffer.
  static constexpr int kElements = 2 * Tile::kElements + (kQueryInRegisters ? 0 : QueryTile::kElements);
  static constexpr int kSharedBytes = kElements * static_cast<int>(sizeof(T));
  static_assert(kRows <= kKeys || !kQueryInRegisters, "the query fits the values' buffer");
  static_assert(kKeyWarps == 1 || kAttendWarps * kRows * (kDim + 2) * 4 <= kSharedBytes, "what join_rows needs");

  // The warp's part of the rows and of the keys.
  ELASTIC_D static int warp_row() { return static_cast<int>(threadIdx.x) / kWarp / kKeyWarps * 16; }
  ELASTIC_D static int warp_key() { return static_cast<int>(threadIdx.x) / kWarp % kKeyWarps * kWarpKeys; }
};

struct AttendPlace {
  int b, group, split;
  int first_row, rows;  // of the tile
  int start;            // cache row of token 0
  int begin, end;       // cache rows of this block
  int seen_by_all;      // rows of the tile see all cache rows before
};

// The cache rows that a token sees: none before the caches' begin, all from their end on.
ELASTIC_D int seen_rows(const Shape& shape, int start, int token) {
  const int seen = start + token + 1;
  return seen < 0 ? 0 : (seen < shape.context ? seen : shape.context);
}

// Tiles that see most come first: those of the last tokens take longest.
template <typename Traits>
ELASTIC_D AttendPlace attend_place(const Args& args, const Cut& cut) {
  const Shape& shape = args.shape;
  const int block = static_cast<int>(blockIdx.x), tile = cut.tiles - 1 - block % cut.tiles, heads = group_heads(shape);
  AttendPlace place;
  place.split = block / cut.tiles;
  place.group = static_cast<int>(blockIdx.y);
  place.b = static_cast<int>(blockIdx.z);
  place.first_row = tile * Traits::kRows;
  const int left = rows_of(shape) - place.first_row;
  place.rows = left < Traits::kRows ? left : Traits::kRows;
  place.start = first_cache_row(args, place.b);
  const int seen = seen_rows(shape, place.start, (place.first_row + place.rows - 1) / heads);
  const int share = divide_up(divide_up(seen, Traits::kKeys), cut.splits) * Traits::kKeys;
  const int begin = place.split * share, end = begin + share;
  place.begin = begin < seen ? begin : seen;
  place.end = end < seen ? end : seen;
  place.seen_by_all = seen_rows(shape, place.start, place.first_row / heads);
  return place;
}

// Row 0 of the block's head in the caches. Blocks of the launch before wrote to them, none of this one does.
template <typename T>
struct AttendView {
  Input<T> keys, values;

  ELASTIC_D AttendView(const Args& args, const AttendPlace& place)
      : keys(Input<T>(args.key_cache).from(cache_offset(args.shape, place.b, place.group, 0))),
        values(Input<T>(args.value_cache).from(cache_offset(args.shape, place.b, place.group, 0))) {}
};

// A thread's 16 bytes of every kStep-th row of a tile.
template <typename Traits>
struct CopyLane {
  static constexpr int kPieces = Traits::kDim / kHeadDimStep, kStep = kAttendThreads / kPieces;
  static_assert(Traits::kKeys % kStep == 0 && Traits::kRows % kStep == 0, "whole passes over the rows");
  ELASTIC_D static int column() { return static_cast<int>(threadIdx.x) % kPieces * kHeadDimStep; }
  ELASTIC_D static int row() { return static_cast<int>(threadIdx.x) / kPieces; }
};

// Starts the copies of a tile's cache rows, from `first` on; rows from `end` on become zero, for a weight of zero times
// what happens to lie there need not be zero.
template <typename Traits>
ELASTIC_D void stage_rows(const Input<typename Traits::Type>& head, int first, int end, int head_dim,
                          const typename Traits::Tile& tile) {
  using Lane = CopyLane<Traits>;
  if (Lane::column() >= head_dim) return;
  const auto* from = head.address(static_cast<int64_t>(first + Lane::row()) * head_dim + Lane::column());
  ELASTIC_UNROLL
  for (int i = 0; i < Traits::kKeys; i += Lane::kStep)
    copy_async_or_zero<16>(tile.at(Lane::row() + i, Lane::column()), from + i * head_dim,
                           first + Lane::row() + i < end);
}

// Starts the copies of the tile's query rows; those past the last one become zero.
template <typename Traits>
ELASTIC_D void stage_query(const Args& args, const AttendPlace& place, const typename Traits::QueryTile& tile) {
  using Lane = CopyLane<Traits>;
  if (Lane::column() >= args.shape.head_dim) return;
  const Input<typename Traits::Type> query(args.query);
  ELASTIC_UNROLL
  for (int i = 0; i < Traits::kRows; i += Lane::kStep) {
    const int row = Lane::row() + i, known = row < place.rows ? row : 0;
    const int64_t offset = row_offset(args.shape, place.b, place.group, place.first_row + known);
    copy_async_or_zero<16>(tile.at(row, Lane::column()), query.address(offset + Lane::column()), row < place.rows);
  }
}

// The block's shared memory.
template <typename Traits>
struct AttendTiles {
  typename Traits::Tile keys, values;
  typename Traits::QueryTile query;

  ELASTIC_D explicit AttendTiles(typename Traits::Type* shared)
      : keys(shared),
        values(shared + Traits::Tile::kElements),
        query(shared + (Traits::kQueryInRegisters ? 1 : 2) * Traits::Tile::kElements) {}

  // Zeros in the columns past the head's, which no copy writes: all of them are multiplied.
  ELASTIC_D void clear_padding(int head_dim) const {
    using Lane = CopyLane<Traits>;
    if (Lane::column() < head_dim) return;
    for (int row = Lane::row(); row < Traits::kKeys; row += Lane::kStep) {
      clear(keys.at(row, Lane::column()));
      clear(values.at(row, Lane::column()));
    }
    if constexpr (!Traits::kQueryInRegisters)
      for (int row = Lane::row(); row < Traits::kRows; row += Lane::kStep) clear(query.at(row, Lane::column()));
  }

 private:
  ELASTIC_D static void clear(typename Traits::Type* to) { *reinterpret_cast<float4*>(to) = {0.f, 0.f, 0.f, 0.f}; }
};

}  // namespace elastic::attention
