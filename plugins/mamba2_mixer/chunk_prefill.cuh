// The selective scan of all tokens on tensor cores, in chunks of 64 (Dao and Gu, arXiv 2405.21060, section 6): with
// cum_i the sum of dt*A from the chunk's first token to token i, S the state before the chunk,
//   y_i = exp(cum_i) C_i S + sum_{j<=i} (C_i . B_j) exp(cum_i - cum_j) dt_j x_j + D x_i     carry_in, within_chunk
//   S'  = exp(cum_last) S + sum_j exp(cum_last - cum_j) dt_j B_j (outer) x_j                  advance_state
//
// Grid (tiles*H, B), eight warps, or four in a narrow block (ChunkBlock). A block owns up to kWidth channels of one head
// and keeps their state [N, kWidth] in float32 accumulators from the first token to the last. For y a warp has 16 tokens
// of the chunk and half of the channels, in a narrow block all of them: the accumulators of C B^T are, weighted and
// packed, the first operand of the product with x, and never leave the registers. For the state it has 16 rows of N, or
// 32, and all channels. What passes between both is a copy of the state in two bytes, once a chunk.
//
// Operands have two bytes and a range: each token's x, B and C come with a power of two of their own
// (conv_operands.cuh), the state's copy and each row of weighted products have one here, all of them exact. So nothing
// overflows whatever the activations are, and the sums over tokens are float32's.
#pragma once

#include "../common/tile.cuh"
#include "chunk_scalars.cuh"
#include "chunk_view.cuh"

namespace elastic::mamba2 {

constexpr int kRowParts = kChunk / kPart;  // a chunk's tokens, 16 a warp

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// The warp's place in a chunk: for y 16 tokens and a share of the channels. Later tokens have more before them in the
// chunk: of two warps that share a scheduler one has the tokens of part w, the other those of part 3 - w. They are warps
// w and w + 4 of a block; of narrow ones warp w of two blocks, as a rule one of the grid's first and one of its last
// half, for a multiprocessor gets its second block when every other has its first.
template <int kWidth>
struct WarpPlace {
  static constexpr int kShares = ChunkBlock<kWidth>::kWarps / kRowParts;
  static_assert(kShares * ChunkBlock<kWidth>::kPerMultiprocessor == 2, "two warps a scheduler");
  int warp = static_cast<int>(threadIdx.x) / kWarp;
  int share = warp / kRowParts;
  int part =
      (kShares == 1 ? 2 * blockIdx.x < gridDim.x : share == 0) ? warp % kRowParts : kRowParts - 1 - warp % kRowParts;
};

// The lane's rows of a 16-row accumulator: row(0) and row(1) of its part.
ELASTIC_D int lane_row(int r) { return Accumulator::row(2 * r); }

// The state of the warp's rows of N, kTiles times 16, in float32; S transposed: [N, channels].
template <typename Operand, int kWidth>
struct ChunkState {
  static constexpr int kParts = kWidth / 8, kTiles = kMaxChunkState / kPart / ChunkBlock<kWidth>::kWarps;
  Accumulator at[kTiles][kParts];

  ELASTIC_D static int row(int m, int e) {
    return (static_cast<int>(threadIdx.x) / kWarp * kTiles + m) * kPart + Accumulator::row(e);
  }

  ELASTIC_D void load(const float* state, int channels, int rows) {
    each(channels, rows, [&](int offset, float& value) { value = state[offset]; });
  }
  ELASTIC_D void store(float* state, int channels, int rows, float unit) {
    each(channels, rows, [&](int offset, float& value) { state[offset] = value * unit; });
  }
  ELASTIC_D float largest() const {
    float most = 0.f;
    ELASTIC_UNROLL
    for (int i = 0; i < kTiles * kParts; ++i) {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; ++e) most = fmaxf(most, fabsf(at[i / kParts][i % kParts].at[e]));
    }
    return most;
  }
  ELASTIC_D void multiply(float factor) {
    ELASTIC_UNROLL
    for (int i = 0; i < kTiles * kParts; ++i) {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; ++e) at[i / kParts][i % kParts].at[e] *= factor;
    }
  }
  ELASTIC_D void hand_over(const SharedTile<Operand, kMaxChunkState, kWidth>& copy) const {
    ELASTIC_UNROLL
    for (int i = 0; i < kTiles * kParts; ++i) {
      const int m = i / kParts, n = i % kParts;
      ELASTIC_UNROLL
      for (int e = 0; e < 4; e += 2)
        *reinterpret_cast<uint32_t*>(copy.at(row(m, e), n * 8 + Accumulator::column(e))) =
            pack_pair<Operand>(at[m][n].at[e], at[m][n].at[e + 1]);
    }
  }

 private:
  // Visits the elements that exist; the others stay zero.
  template <typename Visit>
  ELASTIC_D void each(int channels, int rows, Visit visit) {
    ELASTIC_UNROLL
    for (int i = 0; i < kTiles * kParts; ++i) {
      const int m = i / kParts, n = i % kParts;
      ELASTIC_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int channel = n * 8 + Accumulator::column(e);
        if (channel < channels && row(m, e) < rows) visit(channel * rows + row(m, e), at[m][n].at[e]);
      }
    }
  }
};

// The tile's 16 rows from `row` on as B of kParts products beside each other, from `column` on: use(n, B) of each.
template <int kParts, typename Operand, int kRows, int kColumns, typename Use>
ELASTIC_D void each_b(const SharedTile<Operand, kRows, kColumns>& tile, int row, int column, Use use) {
  ELASTIC_UNROLL
  for (int n = 0; n < kParts; n += 2) {
    FragmentB b[2];
    if (kColumns % kPart != 0 && n + 1 == kParts)
      b[0] = load_b(tile, row, column + n * 8);
    else
      load_b(tile, row, column + n * 8, b);  // of an odd number of parts the last one is half unused
    use(n, b[0]);
    if (n + 1 < kParts) use(n + 1, b[1]);
  }
}

// y of 16 tokens and a share of the channels, in the unit of each row.
template <typename Operand, int kWidth, typename Output>
struct ChunkRows {
  static constexpr int kParts = kWidth / 8 / WarpPlace<kWidth>::kShares;
  static constexpr int kSteps = kMaxChunkState / kPart;
  using Tiles = ChunkTiles<Operand, kWidth>;
  WarpPlace<kWidth> place;
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
      for (int n = 0; n < kParts; ++n) raw[r][n] = output.load(row, channel(n) < block.channels ? channel(n) : 0);
    }
  }

  // C S.
  ELASTIC_D void carry_in(const Tiles& tiles) {
    ELASTIC_UNROLL
    for (int k = 0; k < kSteps; ++k) c[k] = load_a(tiles.c(), place.part * kPart, k * kPart);
    ELASTIC_UNROLL
    for (int k = 0; k < kSteps; ++k)
      each_b<kParts>(tiles.state(), k * kPart, column(),
                     [&](int n, const FragmentB& s) { multiply_add<Operand>(y[n], c[k], s); });
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
          weigh_to_diagonal(products[i], 2 * pair + i, scalars);
        else
          weigh(products[i], 2 * pair + i, scalars);
      }
      ELASTIC_UNROLL
      for (int i = 0; i < 2; ++i) {
        const FragmentA weighted = pack_a<Operand>(products[i][0], products[i][1]);
        each_b<kParts>(tiles.x(stage), (2 * pair + i) * kPart, column(),
                       [&](int n, const FragmentB& x) { multiply_add<Operand>(y[n], weighted, x); });
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
  // Decay from an earlier part's end to the row, and from the column to that end: each is at most 1.
  ELASTIC_D void weigh(Accumulator (&products)[2], int part, const ChunkScalars& scalars) const {
    const float end = scalars.at(Scalar::kCum, part * kPart + kPart - 1);
    float row[2];
    ELASTIC_UNROLL
    for (int r = 0; r < 2; ++r)
      row[r] = quick_exp2(fminf(scalars.at(Scalar::kCum, token(r)) - end, 0.f)) * scalars.at(Scalar::kUnit, token(r));
    ELASTIC_UNROLL
    for (int e = 0; e < 8; ++e) {
      const int column = part * kPart + e / 4 * 8 + Accumulator::column(e % 4);
      products[e / 4].at[e % 4] *= row[e % 4 / 2] * scalars.at(Scalar::kToPartEnd, column);
    }
  }
  // The decay from each token to each; what is above the diagonal is no part of the sum, whatever it is.
  ELASTIC_D void weigh_to_diagonal(Accumulator (&products)[2], int part, const ChunkScalars& scalars) const {
    ELASTIC_UNROLL
    for (int e = 0; e < 8; ++e) {
      const int row = token(e % 4 / 2), column = part * kPart + e / 4 * 8 + Accumulator::column(e % 4);
      const float decay = quick_exp2(fminf(scalars.at(Scalar::kCum, row) - scalars.at(Scalar::kCum, column), 0.f));
      const float weight = decay * scalars.at(Scalar::kUnit, row) * scalars.at(Scalar::kWeight, column);
      float& product = products[e / 4].at[e % 4];
      product = row >= column ? product * weight : 0.f;
    }
  }
};

// S' = factor S + (B, weighted)^T x, in the unit of S'.
template <typename Operand, int kWidth>
ELASTIC_D void advance_state(ChunkState<Operand, kWidth>& state, const ChunkTiles<Operand, kWidth>& tiles, int stage,
                             const ChunkScalars& scalars, float factor) {
  using State = ChunkState<Operand, kWidth>;
  state.multiply(factor);
  ELASTIC_UNROLL
  for (int k = 0; k < kRowParts; ++k) {
    FragmentA b[State::kTiles];
    ELASTIC_UNROLL
    for (int m = 0; m < State::kTiles; ++m)
      b[m] = load_a_transposed(tiles.b(stage), k * kPart, State::row(m, 0) / kPart * kPart);
    float weight[4];
    ELASTIC_UNROLL
    for (int i = 0; i < 4; ++i) weight[i] = scalars.at(Scalar::kToChunkEnd, k * kPart + FragmentA::column(i));
    ELASTIC_UNROLL
    for (int m = 0; m < State::kTiles; ++m) b[m] = scale_columns<Operand>(b[m], weight);
    each_b<State::kParts>(tiles.x(stage), k * kPart, 0, [&](int n, const FragmentB& x) {
      ELASTIC_UNROLL
      for (int m = 0; m < State::kTiles; ++m) multiply_add<Operand>(state.at[m][n], b[m], x);
    });
  }
}

// A row without tokens keeps its state bit for bit.
template <int kThreads>
ELASTIC_D void keep_state(const ChunkView& view, int elements) {
  for (int i = static_cast<int>(threadIdx.x); i < elements; i += kThreads) view.state_out[i] = view.state[i];
}

template <typename Output, typename Operand, int kWidth>
ELASTIC_D void scan_chunks(const Args& args, const PrefillWorkspace& workspace) {
  ELASTIC_DYNAMIC_SHARED(Operand, elements);
  ELASTIC_SHARED(float, scalar_values, ChunkScalars::kFloats);
  ELASTIC_SHARED(float, raw, kRawScalars * kChunk);
  const ChunkTiles<Operand, kWidth> tiles(elements);
  const ChunkScalars scalars(scalar_values);
  const ChunkPlace place = chunk_place<kWidth>(args);
  const ChunkView view(args, workspace, place);
  const Output output(args, workspace, place);
  const int rows = args.shape.state_size, chunks = divide_up(place.length, kChunk);
  constexpr int kThreads = ChunkBlock<kWidth>::kThreads;
  if (chunks == 0) return keep_state<kThreads>(view, place.channels * rows);

  // Load. Tokens first: the first chunk waits for them.
  stage_b_and_x(view, place, 0, 0, tiles);
  stage_c_and_scalars(view, place, 0, tiles, raw);
  commit_async();
  ChunkState<Operand, kWidth> state;
  state.load(view.state, place.channels, rows);
  const HeadParam a_log(args, args.a_log, place.head), d(args, args.d, place.head);

  // Compute, and load one chunk ahead.
  constexpr float kLog2E = 1.44269504f;
  const float log2_a = -expf(a_log.value(args.head_param)) * kLog2E, skip = d.value(args.head_param);
  StateUnit unit = {1.f, block_max<kThreads>(state.largest())};
  unit.unit = StateUnit::of(unit.bound);
  state.multiply(inverse_power(unit.unit));
  state.hand_over(tiles.state());
  for (int i = 0; i < chunks; ++i) {
    const int stage = i % 2, next = (i + 1) * kChunk;
    wait_async<0>();
    __syncthreads();  // the chunk, and the state before it, are there; the chunk before it has been read
    if (i + 1 < chunks) stage_b_and_x(view, place, next, (i + 1) % 2, tiles);
    ChunkRows<Operand, kWidth, Output> chunk;
    chunk.load(output, place, i * kChunk);
    chunk.carry_in(tiles);
    const float factor = chunk_decays(raw, log2_a, skip, scalars, unit);
    __syncthreads();  // C, the state's copy and the raw scalars have been read, and the decays are there
    if (i + 1 < chunks) stage_c_and_scalars(view, place, next, tiles, raw);
    commit_async();
    chunk.decay_carry(scalars);
    chunk.within_chunk(tiles, stage, scalars);
    chunk.store(output, place, i * kChunk, tiles, stage, scalars);
    advance_state(state, tiles, stage, scalars, factor);
    state.hand_over(tiles.state());
  }

  // Store.
  state.store(view.state_out, place.channels, rows, unit.unit);
}

#endif

// Code for cards before sm_80 has no such instructions; chunk_prefill is not chosen there (select.h).
template <typename Output, typename Operand, int kWidth>
__global__ void __launch_bounds__(ChunkBlock<kWidth>::kThreads, ChunkBlock<kWidth>::kPerMultiprocessor)
    chunk_prefill(Args args, PrefillWorkspace workspace) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  scan_chunks<Output, Operand, kWidth>(args, workspace);
#else
  __trap();
#endif
}

}  // namespace elastic::mamba2
