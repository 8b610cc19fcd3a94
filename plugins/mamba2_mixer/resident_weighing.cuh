// What a weighing warp of chunk_resident does.
#pragma once

#include "chunk_view.cuh"
#include "resident_tiles.cuh"

namespace elastic::mamba2 {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// One of the three warps that weigh: the first has the last part of the chunk's tokens, which has most before it, the second
// the third and the first part, the third the second part and the scalars.
template <typename Operand, int kWidth>
class Weighing {
 public:
  using Tiles = ResidentTiles<Operand, kWidth>;

  ELASTIC_D Weighing(const ChunkView& chunk_view, const ChunkPlace& chunk_place, const Tiles& shared,
                     float* raw_scalars, int chunk_count, int which)
      : view(chunk_view), place(chunk_place), tiles(shared), raw(raw_scalars), chunks(chunk_count), warp(which) {}

  ELASTIC_D void begin(float state_bound, float log2_of_decay, float skip_factor) {
    unit = {StateUnit::of(state_bound), state_bound}, log2_a = log2_of_decay, skip = skip_factor;
  }
  // Starts the copies of a chunk's B and C; of its x, and of what its scalars are reckoned from.
  ELASTIC_D void stage_rows(int chunk) const {
    if (chunk >= chunks) return;
    if (warp == 0) stage_by_warp(tiles.c(chunk % 2), view.c, chunk);
    if (warp == 1) stage_by_warp(tiles.b(chunk % 2), view.b, chunk);
    commit_async();
  }
  ELASTIC_D void stage_x(int chunk) const {
    if (chunk >= chunks || warp != 2) return;
    stage_raw(view, place, chunk * kChunk, raw);
    stage_by_warp(tiles.x(chunk % 2), view.x, chunk);
    commit_async();
  }
  // Waits for them; then a chunk's scalars are reckoned, and later written.
  ELASTIC_D void reckon(int chunk) {
    wait_async<0>();
    if (chunk < chunks && warp == 2) decays.reckon(raw, log2_a, unit);
  }
  ELASTIC_D void write(int chunk, const ChunkScalars& scalars) const {
    if (chunk < chunks && warp == 2) decays.write(raw, skip, scalars);
  }
  ELASTIC_D void weigh_chunk(int stage, const ChunkScalars& scalars) const {
    if (warp == 0) weigh_rows<3>(stage, scalars);
    if (warp == 1) weigh_rows<2>(stage, scalars), weigh_rows<0>(stage, scalars);
    if (warp == 2) weigh_rows<1>(stage, scalars);
  }

 private:
  const ChunkView& view;
  const ChunkPlace& place;
  const Tiles& tiles;
  float* raw;
  int chunks, warp;
  float log2_a, skip;
  StateUnit unit;
  ChunkDecays decays;

  template <int kColumns>
  ELASTIC_D void stage_by_warp(const SharedTile<Operand, kChunk, kColumns>& tile, const OperandRows& rows,
                               int chunk) const {
    const int first = chunk * kChunk, lane = static_cast<int>(threadIdx.x) % kWarp;
    stage_tile<kWarp>(tile, rows, first, chunk_tokens(place, first), lane);
  }
  // A part's tokens by all parts up to its own: sums that do not wait for each other.
  template <int kRow>
  ELASTIC_D void weigh_rows(int stage, const ChunkScalars& scalars) const {
    Accumulator products[kRow + 1][2];
    ELASTIC_UNROLL
    for (int k = 0; k < kMaxChunkState / kPart; ++k) {
      const FragmentA c = load_a(tiles.c(stage), kRow * kPart, k * kPart);
      ELASTIC_UNROLL
      for (int part = 0; part <= kRow; ++part) {
        FragmentB b[2];
        load_b_transposed(tiles.b(stage), part * kPart, k * kPart, b);
        multiply_add<Operand>(products[part][0], c, b[0]);
        multiply_add<Operand>(products[part][1], c, b[1]);
      }
    }
    ELASTIC_UNROLL
    for (int part = 0; part <= kRow; ++part) {
      if (part == kRow)
        weigh_to_diagonal(products[part], kRow, part, scalars);
      else
        weigh(products[part], kRow, part, scalars);
      tiles.weighted(kRow, part) = pack_a<Operand>(products[part][0], products[part][1]);
    }
  }
};
static_assert(kRowParts == 4, "how Weighing shares out a chunk's parts");

#endif

}  // namespace elastic::mamba2
