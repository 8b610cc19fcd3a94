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

#include "../common/tile.cuh"
#include "chunk_scalars.cuh"
#include "chunk_view.cuh"
#include "chunk_weights.cuh"

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

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// 16 channels of the state, [channels, N] in float32.
struct ResidentState {
  static constexpr int kParts = kMaxChunkState / 8;
  Accumulator at[kParts];

  ELASTIC_D void load(const float* state, int channels, int rows) {
    each(channels, rows, [&](int offset, float* pair) {
      const Pack<float, 2> values = load_pack<float, 2>(state + offset);
      pair[0] = values.at[0], pair[1] = values.at[1];
    });
  }
  ELASTIC_D void store(float* state, int channels, int rows, float unit) {
    each(channels, rows, [&](int offset, const float* pair) {
      store_pack(state + offset, Pack<float, 2>{{pair[0] * unit, pair[1] * unit}});
    });
  }

 private:
  // Visits the pairs of N that exist, which is even; the others stay zero.
  template <typename Visit>
  ELASTIC_D void each(int channels, int rows, Visit visit) {
    ELASTIC_UNROLL
    for (int n = 0; n < kParts; ++n) {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; e += 2) {
        const int channel = Accumulator::row(e), row = n * 8 + Accumulator::column(e);
        if (channel < channels && row < rows) visit(channel * rows + row, at[n].at + e);
      }
    }
  }
};

// A warp that scans 16 channels. Its y of a part of 16 tokens is two products beside each other, of 8 channels each.
template <typename Output, typename Operand, int kWidth>
class Scanning {
 public:
  using Tiles = ResidentTiles<Operand, kWidth>;
  ResidentState state;

  ELASTIC_D Scanning(const ChunkPlace& place, const Output& out, int warp)
      : block(place), output(out), first_channel(warp * kPart), channels(place.channels - first_channel) {}

  ELASTIC_D void load_state(const ChunkView& view, int rows) {
    state.load(view.state + first_channel * rows, channels, rows);
  }
  ELASTIC_D void store_state(const ChunkView& view, int rows, float unit) {
    state.store(view.state_out + first_channel * rows, channels, rows, unit);
  }
  // What the chunk's y needs besides products. Past the last token that one is loaded again; past the head's channels
  // whatever follows them, up to 40 elements: behind z its row has x, B, C and dt, 52 at least.
  ELASTIC_D void load(int first, const Tiles& tiles, int stage) {
    const int last = chunk_tokens(block, first) - 1;
    auto at = output.address(first + (token(0, 0) < last ? token(0, 0) : last), channel(0));
    ELASTIC_UNROLL
    for (int i = 0; i < 2 * kRowParts; ++i) {
      ELASTIC_UNROLL
      for (int n = 0; n < 2; ++n) raw[i / 2][i % 2][n] = output.load(at + n * 8);
      if (token(0, 0) + (i + 1) * 8 <= last) at = output.below(at, 8);
    }
    ELASTIC_UNROLL
    for (int k = 0; k < kRowParts; ++k) x[k] = load_a_transposed(tiles.x(stage), k * kPart, first_channel);
  }
  // C S, decayed to each token.
  ELASTIC_D void carry_in(const Tiles& tiles, int stage, const ChunkScalars& scalars) {
    ELASTIC_UNROLL
    for (int i = 0; i < 2 * kRowParts; ++i) y[i / 2][i % 2] = {};
    ELASTIC_UNROLL
    for (int k = 0; k < ResidentState::kParts / 2; ++k) {
      FragmentB s[2];
      transpose(pack_a<Operand>(state.at[2 * k], state.at[2 * k + 1]), s);
      ELASTIC_UNROLL
      for (int m = 0; m < kRowParts; ++m) multiply_row(y[m], load_a(tiles.c(stage), m * kPart, k * kPart), s);
    }
    ELASTIC_UNROLL
    for (int i = 0; i < 2 * kRowParts; ++i) {
      const int m = i / 2, r = i % 2;
      const float carry = scalars.at(Scalar::kCarry, token(m, r));
      ELASTIC_UNROLL
      for (int n = 0; n < 2; ++n) y[m][n].at[2 * r] *= carry, y[m][n].at[2 * r + 1] *= carry;
    }
  }
  // S' = factor S + (x, weighted)^T B, in the unit of S'.
  ELASTIC_D void advance(const Tiles& tiles, int stage, const ChunkScalars& scalars) {
    multiply(state.at, scalars.factor());
    ELASTIC_UNROLL
    for (int k = 0; k < kRowParts; ++k) {
      float weight[4];
      ELASTIC_UNROLL
      for (int i = 0; i < 4; ++i) weight[i] = scalars.at(Scalar::kToChunkEnd, k * kPart + FragmentA::column(i));
      const FragmentA weighted = scale_columns<Operand>(x[k], weight);
      ELASTIC_UNROLL
      for (int n = 0; n < ResidentState::kParts; n += 2) {
        FragmentB b[2];
        load_b(tiles.b(stage), k * kPart, n * 8, b);
        multiply_add<Operand>(state.at[n], weighted, b[0]);
        multiply_add<Operand>(state.at[n + 1], weighted, b[1]);
      }
    }
  }
  // What tokens of this chunk add.
  ELASTIC_D void within_chunk(const Tiles& tiles) {
    ELASTIC_UNROLL
    for (int m = 0; m < kRowParts; ++m) {
      ELASTIC_UNROLL
      for (int k = 0; k <= m; ++k) {
        FragmentB of_x[2];
        transpose(x[k], of_x);
        multiply_row(y[m], tiles.weighted(m, k), of_x);
      }
    }
  }
  ELASTIC_D void store(int first, const Tiles& tiles, int stage, const ChunkScalars& scalars) const {
    // All chunks but the last have all tokens: there no branch stands between one channel's values and the next's.
    if (first + kChunk <= block.length && channels >= kPart)
      store_part<true>(first, tiles, stage, scalars);
    else
      store_part<false>(first, tiles, stage, scalars);
  }

 private:
  const ChunkPlace& block;
  const Output& output;
  int first_channel, channels;  // of the block's; those that there are
  FragmentA x[kRowParts];       // of 16 tokens each, transposed: [channels, tokens]
  Accumulator y[kRowParts][2];
  typename Output::Raw raw[kRowParts][2][2];

  // Of the chunk and of the block: the lane's two rows of a part, and the first of its two columns of each product.
  ELASTIC_D static int token(int m, int r) { return m * kPart + Accumulator::row(2 * r); }
  ELASTIC_D int channel(int n) const { return first_channel + n * 8 + Accumulator::column(0); }

  ELASTIC_D static void multiply_row(Accumulator (&sums)[2], const FragmentA& a, const FragmentB (&b)[2]) {
    multiply_add<Operand>(sums[0], a, b[0]);
    multiply_add<Operand>(sums[1], a, b[1]);
  }
  template <bool kWhole>
  ELASTIC_D void store_part(int first, const Tiles& tiles, int stage, const ChunkScalars& scalars) const {
    ELASTIC_UNROLL
    for (int i = 0; i < 2 * kRowParts; ++i) {
      const int m = i / 2, r = i % 2, row = token(m, r);
      if (!kWhole && first + row >= block.length) continue;
      const float out = scalars.at(Scalar::kOut, row), skip = scalars.at(Scalar::kSkip, row);
      ELASTIC_UNROLL
      for (int n = 0; n < 2; ++n) {
        if (!kWhole && channel(n) >= block.channels) continue;
        const Pack<Operand, 2> by_skip = load_pack<Operand, 2>(tiles.x(stage).at(row, channel(n)));
        const float* const sum = y[m][n].at + 2 * r;
        output.store(
            first + row, channel(n),
            {{fmaf(sum[0], out, skip * to_float(by_skip.at[0])), fmaf(sum[1], out, skip * to_float(by_skip.at[1]))}},
            raw[m][r][n]);
      }
    }
  }
};

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
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
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
