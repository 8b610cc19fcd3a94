// The sums of chunk_prefill.cuh by warps of two kinds, and with a state that never leaves the registers: its accumulators,
// [16 channels, 8 of N], are as they lie, packed, an operand of C S.
//
// Grid (tiles*H, B). A block owns up to kWidth channels of one head. A scanning warp has 16 of them: their state, and y of
// all the chunk's tokens. Three weighing warps multiply C B^T for all, weigh it and leave it in shared memory as
// operands; they reckon the next chunk's scalars, and start all copies. A chunk has two phases:
//
//            scanning                                weighing
//   first    C S; the state after the chunk          C B^T, weighed; x of the next chunk on its way, its scalars reckoned
//   second   weighted C B^T x; y stored              those scalars written; B and C of the next chunk but one on their way
#pragma once

#include "resident_scanning.cuh"
#include "resident_weighing.cuh"

namespace elastic::mamba2 {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

template <typename Output, typename Operand, int kWidth>
ELASTIC_D void scan_resident(const Args& args, const PrefillWorkspace& workspace) {
  using Block = ResidentBlock<kWidth>;
  ELASTIC_DYNAMIC_SHARED(Operand, elements);
  ELASTIC_SHARED(float, scalar_values, ChunkScalars::kFloats);
  ELASTIC_SHARED(float, raw, kRawScalars* kChunk);
  const ResidentTiles<Operand, kWidth> tiles(elements);
  const ChunkPlace place = chunk_place<kWidth>(args);
  const ChunkView view(args, workspace, place);
  const Output output(args, workspace, place);
  const int rows = args.shape.state_size, chunks = divide_up(place.length, kChunk);
  if (chunks == 0) return keep_state<Block::kThreads>(view, place.channels * rows);
  const int warp = warp_index();
  const bool scans = warp < Block::kScanning;

  // Load.
  Scanning<Output, Operand, kWidth> scanning(place, output, warp);
  Weighing<Operand, kWidth> weighing(view, place, tiles, raw, chunks, warp - Block::kScanning);
  if (scans)
    scanning.load_state(view, rows);
  else
    weighing.stage_rows(0), weighing.stage_x(0);
  const float bound = block_max<Block::kThreads>(scans ? largest_magnitude(scanning.state.at) : 0.f);

  // Compute, and load ahead.
  if (scans) {
    multiply(scanning.state.at, inverse_power(StateUnit::of(bound)));
    for (int i = 0; i < chunks; ++i) {
      const ChunkScalars scalars(scalar_values, i % 2);
      Block::begin_first_phase();  // the chunk's tokens and scalars are there
      scanning.load(i * kChunk, tiles, i % 2);
      scanning.carry_in(tiles, i % 2, scalars);
      scanning.advance(tiles, i % 2, scalars);
      Block::begin_second_phase();  // the weighted products are there
      scanning.within_chunk(tiles);
      scanning.store(i * kChunk, tiles, i % 2, scalars);
    }
    scanning.store_state(view, rows, ChunkScalars(scalar_values).unit());
  } else {
    constexpr float kLog2E = 1.44269504f;
    const HeadParam a_log(args, args.a_log, place.head), d(args, args.d, place.head);
    weighing.begin(bound, -expf(a_log.value(args.head_param)) * kLog2E, d.value(args.head_param));
    weighing.reckon(0);
    weighing.write(0, ChunkScalars(scalar_values, 0));
    weighing.stage_rows(1);
    for (int i = 0; i < chunks; ++i) {
      Block::begin_first_phase();  // the weighted products, and the x of the chunk before, have been read
      weighing.stage_x(i + 1);
      weighing.weigh_chunk(i % 2, ChunkScalars(scalar_values, i % 2));
      weighing.reckon(i + 1);
      Block::begin_second_phase();  // B, C and the scalars have been read, but for those that y is stored by
      weighing.write(i + 1, ChunkScalars(scalar_values, (i + 1) % 2));
      weighing.stage_rows(i + 2);
    }
  }
}

#endif

// Code for cards before sm_80 has no such instructions; it is not chosen there (select.h).
template <typename Output, typename Operand, int kWidth>
__global__ void __launch_bounds__(ResidentBlock<kWidth>::kThreads, 1)
    chunk_resident(Args args, PrefillWorkspace workspace) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  scan_resident<Output, Operand, kWidth>(args, workspace);
#else
  __trap();
#endif
}

}  // namespace elastic::mamba2
