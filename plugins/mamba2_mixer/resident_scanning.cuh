// What a scanning warp of chunk_resident does.
#pragma once

#include "chunk_view.cuh"
#include "resident_tiles.cuh"

namespace elastic::mamba2 {

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

#endif

}  // namespace elastic::mamba2
