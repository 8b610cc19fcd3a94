// The selective scan of all tokens on tensor cores, in chunks of 64 (Dao and Gu, arXiv 2405.21060, section 6): with
// cum_i the sum of dt*A from the chunk's first token to token i, S the state before the chunk,
//   y_i = exp(cum_i) C_i S + sum_{j<=i} (C_i . B_j) exp(cum_i - cum_j) dt_j x_j + D x_i     carry_in, within_chunk
//   S'  = exp(cum_last) S + sum_j exp(cum_last - cum_j) dt_j B_j (outer) x_j                  advance_state
//
// Grid (tiles*H, B), eight warps. A block owns up to kWidth channels of one head and keeps their state [N, kWidth] in
// float32 accumulators from the first token to the last. For y a warp has 16 tokens of the chunk and half of the
// channels: the accumulators of C B^T are, weighted and packed, the first operand of the product with x, and never
// leave the registers. For the state it has 16 rows of N and all channels. What passes between both is a copy of the
// state in two bytes, once a chunk.
//
// Operands have two bytes and a range: each token's x, B and C come with a power of two of their own
// (conv_operands.cuh), the state's copy and each row of weighted products have one here, all of them exact. So nothing
// overflows whatever the activations are, and the sums over tokens are float32's.
#pragma once

#include "../common/tile.cuh"
#include "chunk_scalars.cuh"
#include "chunk_view.cuh"
#include "chunk_weights.cuh"

namespace elastic::mamba2 {

constexpr int kColumnParts = kChunkWarps / kRowParts;  // shares of the channels for y
static_assert(kMaxChunkState == kChunkWarps * kPart, "for the state each warp has 16 rows");

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// The warp's place in a chunk: for y 16 tokens and a share of the channels. Later tokens have more before them in the
// chunk: warps w and w + 4, which share a scheduler, have the tokens of part w and of part 3 - w.
struct WarpPlace {
  int warp = static_cast<int>(threadIdx.x) / kWarp;
  int share = warp / kRowParts;
  int part = share == 0 ? warp % kRowParts : kRowParts - 1 - warp % kRowParts;
};
static_assert(kColumnParts == 2, "two warps a scheduler");

// The lane's rows of a 16-row accumulator: row(0) and row(1) of its part.
ELASTIC_D int lane_row(int r) { return Accumulator::row(2 * r); }

// The state of the warp's 16 rows of N, in float32; S transposed: [N, channels].
template <typename Operand, int kWidth>
struct ChunkState {
  static constexpr int kParts = kWidth / 8;
  Accumulator at[kParts];

  ELASTIC_D static int row(int e) { return static_cast<int>(threadIdx.x) / kWarp * kPart + Accumulator::row(e); }

  ELASTIC_D void load(const float* state, int channels, int rows) {
    each(channels, rows, [&](int offset, float& value) { value = state[offset]; });
  }
  ELASTIC_D void store(float* state, int channels, int rows, float unit) {
    each(channels, rows, [&](int offset, float& value) { state[offset] = value * unit; });
  }
  ELASTIC_D void hand_over(const SharedTile<Operand, kMaxChunkState, kWidth>& copy) const {
    ELASTIC_UNROLL
    for (int n = 0; n < kParts; ++n) {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; e += 2)
        *reinterpret_cast<uint32_t*>(copy.at(row(e), n * 8 + Accumulator::column(e))) =
            pack_pair<Operand>(at[n].at[e], at[n].at[e + 1]);
    }
  }

 private:
  // Visits the elements that exist; the others stay zero.
  template <typename Visit>
  ELASTIC_D void each(int channels, int rows, Visit visit) {
    ELASTIC_UNROLL
    for (int n = 0; n < kParts; ++n) {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int channel = n * 8 + Accumulator::column(e);
        if (channel < channels && row(e) < rows) visit(channel * rows + row(e), at[n].at[e]);
      }
    }
  }
};

// sums += A * B, B the tile's 16 rows from `row` on and kParts times 8 columns from `column` on.
template <typename Operand, int kParts, int kRows, int kColumns>
ELASTIC_D void multiply_row(Accumulator (&sums)[kParts], const FragmentA& a,
                            const SharedTile<Operand, kRows, kColumns>& tile, int row, int column) {
  ELASTIC_UNROLL
  for (int n = 0; n < kParts; n += 2) {
    FragmentB b[2];
    load_b(tile, row, column + n * 8, b);  // of an odd number the last one is half unused
    multiply_add<Operand>(sums[n], a, b[0]);
    if (n + 1 < kParts) multiply_add<Operand>(sums[n + 1], a, b[1]);
  }
}

// y of 16 tokens and a share of the channels, in the unit of each row.
template <typename Operand, int kWidth, typename Output>
struct ChunkRows {
  static constexpr int kParts = kWidth / 8 / kColumnParts;
  static constexpr int kSteps = kMaxChunkState / kPart;
  using Tiles = ChunkTiles<Operand, kWidth>;
  WarpPlace place;
  FragmentA c[kSteps];
  Accumulator y[kParts];
  typename Output::Raw raw[2][kParts];

  ELASTIC_D int column() const { return place.share * kParts * 8; }
  ELASTIC_D int token(int r) const { return place.part * kPart + lane_row(r); }
  ELASTIC_D int channel(int n) const { return column() + n * 8 + Accumulator::column(0); }

  // What does not exist is loaded from where something does.
  ELASTIC_D void load(const Output& output, const ChunkPlace& block, int first) {
    ELASTIC_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = first + token(r) < block.length ? first + token(r) : first;
      ELASTIC_UNROLL
      for (int n = 0; n < kParts; ++n)
        raw[r][n] = output.load(output.address(row, channel(n) < block.channels ? channel(n) : 0));
    }
  }

  // C S.
  ELASTIC_D void carry_in(const Tiles& tiles) {
    ELASTIC_UNROLL
    for (int k = 0; k < kSteps; ++k) c[k] = load_a(tiles.c(), place.part * kPart, k * kPart);
    ELASTIC_UNROLL
    for (int k = 0; k < kSteps; ++k) multiply_row(y, c[k], tiles.state(), k * kPart, column());
  }
  ELASTIC_D void decay_carry(const ChunkScalars& scalars) {
    const float carry[2] = {scalars.at(Scalar::kCarry, token(0)), scalars.at(Scalar::kCarry, token(1))};
    ELASTIC_UNROLL
    for (int n = 0; n < kParts; ++n) {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; ++e) y[n].at[e] *= carry[e / 2];
    }
  }
  // What tokens of this chunk add, two parts at a time: four sums that do not wait for each other. Of the last pair the
  // second part may lie past the diagonal altogether.
  ELASTIC_D void within_chunk(const Tiles& tiles, int stage, const ChunkScalars& scalars) {
    ELASTIC_ROLLED
    for (int pair = 0; pair <= place.part / 2; ++pair) {
      Accumulator products[2][2];
      ELASTIC_UNROLL
      for (int k = 0; k < kSteps; ++k) {
        ELASTIC_UNROLL
        for (int i = 0; i < 2; ++i) {
          FragmentB b[2];
          load_b_transposed(tiles.b(stage), (2 * pair + i) * kPart, k * kPart, b);
          multiply_add<Operand>(products[i][0], c[k], b[0]);
          multiply_add<Operand>(products[i][1], c[k], b[1]);
        }
      }
      const bool last = pair == place.part / 2;
      ELASTIC_UNROLL
      for (int i = 0; i < 2; ++i) {
        if (last)
          weigh_to_diagonal(products[i], place.part, 2 * pair + i, scalars);
        else
          weigh(products[i], place.part, 2 * pair + i, scalars);
      }
      ELASTIC_UNROLL
      for (int i = 0; i < 2; ++i) {
        const FragmentA weighted = pack_a<Operand>(products[i][0], products[i][1]);
        multiply_row(y, weighted, tiles.x(stage), (2 * pair + i) * kPart, column());
      }
    }
  }
  ELASTIC_D void store(const Output& output, const ChunkPlace& block, int first, const Tiles& tiles, int stage,
                       const ChunkScalars& scalars) const {
    // All chunks but the last have all tokens: there no branch stands between one channel's values and the next's.
    if (first + kChunk <= block.length && block.channels == kWidth)
      store_part<true>(output, block, first, tiles, stage, scalars);
    else
      store_part<false>(output, block, first, tiles, stage, scalars);
  }

 private:
  template <bool kWhole>
  ELASTIC_D void store_part(const Output& output, const ChunkPlace& block, int first, const Tiles& tiles, int stage,
                            const ChunkScalars& scalars) const {
    ELASTIC_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = token(r);
      if (!kWhole && first + row >= block.length) continue;
      const float out = scalars.at(Scalar::kOut, row), skip = scalars.at(Scalar::kSkip, row);
      ELASTIC_UNROLL
      for (int n = 0; n < kParts; ++n) {
        if (!kWhole && channel(n) >= block.channels) continue;
        const Pack<Operand, 2> x = load_pack<Operand, 2>(tiles.x(stage).at(row, channel(n)));
        const Pack<float, 2> sum = {{fmaf(y[n].at[2 * r], out, skip * to_float(x.at[0])),
                                     fmaf(y[n].at[2 * r + 1], out, skip * to_float(x.at[1]))}};
        output.store(first + row, channel(n), sum, raw[r][n]);
      }
    }
  }
};

// S' = factor S + (B, weighted)^T x, in the unit of S'.
template <typename Operand, int kWidth>
ELASTIC_D void advance_state(ChunkState<Operand, kWidth>& state, const ChunkTiles<Operand, kWidth>& tiles, int stage,
                             const ChunkScalars& scalars, float factor) {
  multiply(state.at, factor);
  ELASTIC_UNROLL
  for (int k = 0; k < kRowParts; ++k) {
    const FragmentA b = load_a_transposed(tiles.b(stage), k * kPart, state.row(0) / kPart * kPart);
    float weight[4];
    ELASTIC_UNROLL
    for (int i = 0; i < 4; ++i) weight[i] = scalars.at(Scalar::kToChunkEnd, k * kPart + FragmentA::column(i));
    multiply_row(state.at, scale_columns<Operand>(b, weight), tiles.x(stage), k * kPart, 0);
  }
}

template <typename Output, typename Operand, int kWidth>
ELASTIC_D void scan_chunks(const Args& args, const PrefillWorkspace& workspace) {
  ELASTIC_DYNAMIC_SHARED(Operand, elements);
  ELASTIC_SHARED(float, scalar_values, ChunkScalars::kFloats);
  ELASTIC_SHARED(float, raw, kRawScalars* kChunk);
  const ChunkTiles<Operand, kWidth> tiles(elements);
  const ChunkScalars scalars(scalar_values);
  const ChunkPlace place = chunk_place<kWidth>(args);
  const ChunkView view(args, workspace, place);
  const Output output(args, workspace, place);
  const int rows = args.shape.state_size, chunks = divide_up(place.length, kChunk);
  if (chunks == 0) return keep_state<kChunkThreads>(view, place.channels * rows);

  // Load. Tokens first: the first chunk waits for them.
  stage_b_and_x(view, place, 0, 0, tiles);
  stage_c(view, place, 0, tiles);
  if (threadIdx.x < kWarp) stage_raw(view, place, 0, raw);
  commit_async();
  ChunkState<Operand, kWidth> state;
  state.load(view.state, place.channels, rows);
  const HeadParam a_log(args, args.a_log, place.head), d(args, args.d, place.head);

  // Compute, and load one chunk ahead.
  constexpr float kLog2E = 1.44269504f;
  const float log2_a = -expf(a_log.value(args.head_param)) * kLog2E, skip = d.value(args.head_param);
  StateUnit unit = {1.f, block_max<kChunkThreads>(largest_magnitude(state.at))};
  unit.unit = StateUnit::of(unit.bound);
  multiply(state.at, inverse_power(unit.unit));
  state.hand_over(tiles.state());
  for (int i = 0; i < chunks; ++i) {
    const int stage = i % 2, next = (i + 1) * kChunk;
    wait_async<0>();
    __syncthreads();  // the chunk, and the state before it, are there; the chunk before it has been read
    if (i + 1 < chunks) stage_b_and_x(view, place, next, (i + 1) % 2, tiles);
    ChunkRows<Operand, kWidth, Output> chunk;
    chunk.load(output, place, i * kChunk);
    chunk.carry_in(tiles);
    ChunkDecays decays;  // in every warp, so that none waits for another to know the next unit; one writes the scalars
    decays.reckon(raw, log2_a, unit);
    if (threadIdx.x < kWarp) decays.write(raw, skip, scalars);
    __syncthreads();  // C, the state's copy and the raw scalars have been read, and the decays are there
    if (i + 1 < chunks) {
      stage_c(view, place, next, tiles);
      if (threadIdx.x < kWarp) stage_raw(view, place, next, raw);
    }
    commit_async();
    chunk.decay_carry(scalars);
    chunk.within_chunk(tiles, stage, scalars);
    chunk.store(output, place, i * kChunk, tiles, stage, scalars);
    advance_state(state, tiles, stage, scalars, decays.factor());
    state.hand_over(tiles.state());
  }

  // Store.
  state.store(view.state_out, place.channels, rows, unit.unit);
}

#endif

// Code for cards before sm_80 has no such instructions; chunk_prefill is not chosen there (select.h).
template <typename Output, typename Operand, int kWidth>
__global__ void __launch_bounds__(kChunkThreads, 1) chunk_prefill(Args args, PrefillWorkspace workspace) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  scan_chunks<Output, Operand, kWidth>(args, workspace);
#else
  __trap();
#endif
}

}  // namespace elastic::mamba2
