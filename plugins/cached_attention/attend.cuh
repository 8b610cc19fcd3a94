// Softmax(scale*Q*K')*V of a tile of rows over some of the cache rows, on tensor cores; scores, softmax and sums in
// float32. Dao, "FlashAttention-2", arXiv 2307.08691; the splits over the cache: Dao and others, "Flash-Decoding"
// (2023).
//
// Grid (tiles*splits, G, B), four warps. The cache rows come in tiles of kKeys, keys and values by turns, each in its
// own buffer: while one is computed with, the other is on its way. With 64 rows every warp has 16 of them and meets
// all keys; with 16 rows every warp has all of them and a quarter of the keys, and the warps' results are joined at
// the end. Nothing past the last cache row that a token of the tile sees is read.
#pragma once

#include "attend_softmax.cuh"
#include "attend_stage.cuh"
#include "parts.cuh"

namespace elastic::attention {

// The query as the A of all scores: in registers where they suffice, else loaded from shared memory each time.
template <typename Traits>
class QueryFragments {
 public:
  using Tile = typename Traits::QueryTile;

  // All warps have loaded theirs before the tile's memory gets another use.
  ELASTIC_D explicit QueryFragments(const Tile& tile) : tile_(tile) {
    if constexpr (Traits::kQueryInRegisters) {
      ELASTIC_UNROLL
      for (int k = 0; k < Traits::kDim / 16; ++k) fragments_[k] = load_a(tile_, Traits::warp_row(), k * 16);
    }
  }
  ELASTIC_D FragmentA at(int k) const {
    if constexpr (Traits::kQueryInRegisters)
      return fragments_[k];
    else
      return load_a(tile_, Traits::warp_row(), k * 16);
  }

 private:
  Tile tile_;
  FragmentA fragments_[Traits::kQueryInRegisters ? Traits::kDim / 16 : 1];
};

// The warp's rows times its keys.
template <typename Traits>
ELASTIC_D void multiply_keys(const QueryFragments<Traits>& query, const typename Traits::Tile& keys,
                             Accumulator (&scores)[Traits::kWarpKeys / 8]) {
  ELASTIC_UNROLL
  for (int k = 0; k < Traits::kDim / 16; ++k) {
    const FragmentA a = query.at(k);
    ELASTIC_UNROLL
    for (int n = 0; n < Traits::kWarpKeys / 16; ++n) {
      FragmentB b[2];
      load_b_transposed(keys, Traits::warp_key() + n * 16, k * 16, b);
      multiply_add<typename Traits::Type>(scores[2 * n], a, b[0]);
      multiply_add<typename Traits::Type>(scores[2 * n + 1], a, b[1]);
    }
  }
}

// The warp's weights times its values, onto the sums.
template <typename Traits>
ELASTIC_D void add_values(const Accumulator (&weights)[Traits::kWarpKeys / 8], const typename Traits::Tile& values,
                          Accumulator (&sums)[Traits::kDim / 8]) {
  ELASTIC_UNROLL
  for (int k = 0; k < Traits::kWarpKeys / 16; ++k) {
    const FragmentA a = pack_a<typename Traits::Type>(weights[2 * k], weights[2 * k + 1]);
    ELASTIC_UNROLL
    for (int n = 0; n < Traits::kDim / 16; ++n) {
      FragmentB b[2];
      load_b(values, Traits::warp_key() + k * 16, n * 16, b);
      multiply_add<typename Traits::Type>(sums[2 * n], a, b[0]);
      multiply_add<typename Traits::Type>(sums[2 * n + 1], a, b[1]);
    }
  }
}

// What a block writes, and where.
struct Results {
  const Args& args;
  const Cut& cut;
  const Parts& parts;
  const AttendPlace& place;

  // To y; where the cache is shared out, unfinished to the parts.
  ELASTIC_D bool finished() const { return cut.splits == 1; }
};

// Writes a row of the tile. Where its columns go and what they are multiplied by is reckoned once: ptxas leaves a
// division and a 64-bit offset behind the branch around each store.
template <typename Traits>
class RowWriter {
 public:
  ELASTIC_D RowWriter(const Results& results, int row, const RowWeight& total) : results_(results), total_(total) {
    const Shape& shape = results.args.shape;
    const AttendPlace& place = results.place;
    if (row >= place.rows) return;
    columns_ = shape.head_dim;
    if (results.finished()) {
      y_ = static_cast<Type*>(results.args.y) + row_offset(shape, place.b, place.group, place.first_row + row);
      share_ = total.weight == 0.f ? 0.f : 1.f / total.weight;
    } else {
      part_ = part_row(shape, results.cut, place.split, place.b, place.group, place.first_row + row);
      sums_ = results.parts.sums + static_cast<int64_t>(part_) * shape.head_dim;
    }
  }

  // The sums of columns `column` and the next one.
  ELASTIC_D void write(int column, float first, float second) const {
    if (column >= columns_) return;
    if (results_.finished())
      *reinterpret_cast<uint32_t*>(y_ + column) = pack_pair<Type>(first * share_, second * share_);
    else
      store_pack(sums_ + column, Pack<float, 2>{{first, second}});
  }
  // Once a row; nothing where y is written.
  ELASTIC_D void write_total() const {
    if (results_.finished() || columns_ == 0) return;
    results_.parts.best[part_] = total_.best;
    results_.parts.weight[part_] = total_.weight;
  }

 private:
  using Type = typename Traits::Type;

  const Results& results_;
  RowWeight total_;
  int columns_ = 0;  // none of a row past the last one
  Type* y_ = nullptr;
  float share_ = 0.f;
  float* sums_ = nullptr;
  int part_ = 0;
};

// A share without cache rows: zeros of y, or weight 0.
template <typename Traits>
ELASTIC_D void write_nothing(const Results& results) {
  const RowWeight none = {-INFINITY, 0.f};
  const int thread = static_cast<int>(threadIdx.x);
  if (results.finished()) {
    for (int i = thread; i < Traits::kRows * Traits::kDim / 2; i += kAttendThreads)
      RowWriter<Traits>(results, i / (Traits::kDim / 2), none).write(i % (Traits::kDim / 2) * 2, 0.f, 0.f);
  } else if (thread < Traits::kRows) {
    RowWriter<Traits>(results, thread, none).write_total();
  }
}

// Every warp has all keys of its rows: its lanes write what they hold.
template <typename Traits>
ELASTIC_D void write_rows(const Results& results, const Accumulator (&sums)[Traits::kDim / 8],
                          const RowWeight (&totals)[2]) {
  ELASTIC_UNROLL
  for (int half = 0; half < 2; ++half) {
    const RowWriter<Traits> writer(results, Traits::warp_row() + Accumulator::row(2 * half), totals[half]);
    ELASTIC_UNROLL
    for (int n = 0; n < Traits::kDim / 8; ++n)
      writer.write(n * 8 + Accumulator::column(0), sums[n].at[2 * half], sums[n].at[2 * half + 1]);
    if (threadIdx.x % 4 == 0) writer.write_total();
  }
}

// Every warp has all rows and some of their keys: the block joins them in `shared`, the tiles' memory.
template <typename Traits>
ELASTIC_D void join_rows(const Results& results, const Accumulator (&sums)[Traits::kDim / 8],
                         const RowWeight (&totals)[2], float* shared) {
  constexpr int kDim = Traits::kDim, kRows = Traits::kRows;
  float* const joined = shared;                              // [warps, kRows, kDim]
  float* const best = joined + kAttendWarps * kRows * kDim;  // [warps, kRows], as is
  float* const weight = best + kAttendWarps * kRows;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  __syncthreads();  // nobody reads the last values any more
  ELASTIC_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int row = Accumulator::row(2 * half);
    ELASTIC_UNROLL
    for (int n = 0; n < kDim / 8; ++n)
      store_pack(joined + (warp * kRows + row) * kDim + n * 8 + Accumulator::column(0),
                 Pack<float, 2>{{sums[n].at[2 * half], sums[n].at[2 * half + 1]}});
    if (threadIdx.x % 4 == 0) {
      best[warp * kRows + row] = totals[half].best;
      weight[warp * kRows + row] = totals[half].weight;
    }
  }
  __syncthreads();  // all warps' results
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kDim / 2; i += kAttendThreads) {
    const int row = i / (kDim / 2), column = i % (kDim / 2) * 2;
    RowWeight total = {-INFINITY, 0.f};
    for (int w = 0; w < kAttendWarps; ++w) total.best = fmaxf(total.best, best[w * kRows + row]);
    float first = 0.f, second = 0.f;
    for (int w = 0; w < kAttendWarps; ++w) {
      const float factor = power_below(best[w * kRows + row], total.best);
      const Pack<float, 2> pair = load_pack<float, 2>(joined + (w * kRows + row) * kDim + column);
      total.weight = fmaf(factor, weight[w * kRows + row], total.weight);
      first = fmaf(factor, pair.at[0], first);
      second = fmaf(factor, pair.at[1], second);
    }
    const RowWriter<Traits> writer(results, row, total);
    writer.write(column, first, second);
    if (column == 0) writer.write_total();
  }
}

template <typename T, int kDim, int kRows>
__global__ __launch_bounds__(kAttendThreads, AttendTraits<T, kDim, kRows>::kBlocks) void attend(Args args, Cut cut,
                                                                                                Parts parts) {
  using Traits = AttendTraits<T, kDim, kRows>;
  ELASTIC_DYNAMIC_SHARED(T, shared);
  const AttendTiles<Traits> tiles(shared);
  const AttendPlace place = attend_place<Traits>(args, cut);
  const Results results = {args, cut, parts, place};
  if (place.begin >= place.end) return write_nothing<Traits>(results);

  const AttendView<T> view(args, place);
  tiles.clear_padding(args.shape.head_dim);
  stage_query<Traits>(args, place, tiles.query);
  commit_async();
  stage_rows<Traits>(view.keys, place.begin, place.end, args.shape.head_dim, tiles.keys);
  commit_async();
  wait_async<1>();
  __syncthreads();  // the query, and zeros in what no copy fills
  const QueryFragments<Traits> query(tiles.query);
  const RowLimits limits(args.shape, place, Traits::warp_row());
  RowState rows;
  Accumulator sums[kDim / 8];

  for (int first = place.begin; first < place.end; first += Traits::kKeys) {
    Accumulator scores[Traits::kWarpKeys / 8];
    wait_async<0>();
    __syncthreads();  // the keys; and nobody reads the values before any more, nor the query from their buffer
    stage_rows<Traits>(view.values, first, place.end, args.shape.head_dim, tiles.values);
    commit_async();
    multiply_keys<Traits>(query, tiles.keys, scores);
    if (first + Traits::kKeys > place.seen_by_all) hide_unseen<Traits>(scores, first, limits);
    rows.weigh<Traits>(scores, sums, args.scale * kLog2OfE);
    wait_async<0>();
    __syncthreads();  // the values; and nobody reads these keys any more
    if (first + Traits::kKeys < place.end)
      stage_rows<Traits>(view.keys, first + Traits::kKeys, place.end, args.shape.head_dim, tiles.keys);
    commit_async();
    add_values<Traits>(scores, tiles.values, sums);
  }
  const RowWeight totals[2] = {rows.total(0), rows.total(1)};
  if constexpr (Traits::kKeyWarps == 1)
    write_rows<Traits>(results, sums, totals);
  else
    join_rows<Traits>(results, sums, totals, reinterpret_cast<float*>(shared));
}

}  // namespace elastic::attention
