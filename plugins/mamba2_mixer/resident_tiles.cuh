// A block of chunk_resident: its warps, where they meet, and its tiles in shared memory.
#pragma once

#include "../common/tile.cuh"
#include "chunk_weights.cuh"
#include "limits.h"

namespace elastic::mamba2 {

constexpr int kWeighingWarps = 3;

template <int kWidth>
struct ResidentBlock {
  static_assert(kWidth % kPart == 0, "16 channels a warp");
  static constexpr int kScanning = kWidth / kPart, kThreads = (kScanning + kWeighingWarps) * kWarp;

  // Between a chunk's phases, and before the first: whoever comes to one waits for all of the block.
  ELASTIC_D static void begin_first_phase() { meet<1, kThreads>(); }
  ELASTIC_D static void begin_second_phase() { meet<2, kThreads>(); }
};

template <typename Operand, int kWidth>
struct ResidentTiles {
  using Rows = SharedTile<Operand, kChunk, kMaxChunkState>;
  using Channels = SharedTile<Operand, kChunk, kWidth>;
  static constexpr int kWeighted = kRowParts * (kRowParts + 1) / 2;  // parts up to the diagonal
  static constexpr int kElements = 4 * Rows::kElements + 2 * Channels::kElements + kWeighted * kPart * kPart;
  static constexpr int kBytes = kElements * static_cast<int>(sizeof(Operand));

  ELASTIC_D explicit ResidentTiles(Operand* first) : first_(first) {}
  ELASTIC_D Rows c(int stage) const { return Rows(first_ + stage * Rows::kElements); }
  ELASTIC_D Rows b(int stage) const { return Rows(first_ + (2 + stage) * Rows::kElements); }
  ELASTIC_D Channels x(int stage) const { return Channels(channels() + stage * Channels::kElements); }
  // The lane's fragment of the weighted products of two parts.
  ELASTIC_D FragmentA& weighted(int row_part, int part) const {
    auto* const fragments = reinterpret_cast<FragmentA*>(channels() + 2 * Channels::kElements);
    const int before = row_part * (row_part + 1) / 2 + part, lane = static_cast<int>(threadIdx.x) % kWarp;
    return fragments[before * kWarp + lane];
  }

 private:
  Operand* first_;

  ELASTIC_D Operand* channels() const { return first_ + 4 * Rows::kElements; }
};

}  // namespace elastic::mamba2
