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
#include "maths.h"
#include "operand_rows.cuh"
#include "views.cuh"

namespace elastic::mamba2 {

constexpr int kChunkWarps = 8;
constexpr int kChunkThreads = kChunkWarps * kWarp;
constexpr int kPart = 16;                              // rows and columns of the pieces that a warp multiplies
constexpr int kRowParts = kChunk / kPart;              // a chunk's tokens, 16 a warp
constexpr int kColumnParts = kChunkWarps / kRowParts;  // shares of the channels for y
static_assert(kMaxChunkState == kChunkWarps * kPart, "for the state each warp has 16 rows");

// What is known of each token of the chunk that is being computed.
enum class Scalar {
  kCum,         // log2 of the decay from the chunk's start through the token
  kWeight,      // dt, and the units of x and B
  kToPartEnd,   // kWeight, decayed to the end of the token's 16
  kToChunkEnd,  // kWeight, decayed to the end of the chunk, in the unit of the next state
  kUnit,        // 1 / the unit of the token's row of weighted products
  kCarry,       // decay and unit of what comes from the state, in the row's unit
  kOut,         // the unit of C and the row's
  kSkip,        // D, and the unit of x
  kCount
};
class ChunkScalars {
 public:
  static constexpr int kFloats = static_cast<int>(Scalar::kCount) * kChunk;
  ELASTIC_D explicit ChunkScalars(float* first) : first_(first) {}
  ELASTIC_D float& at(Scalar what, int token) const { return first_[static_cast<int>(what) * kChunk + token]; }

 private:
  float* first_;
};

// As they are copied from the workspace: dt, and the units of x, B and C.
constexpr int kRawScalars = 4;
static_assert(kRawScalars * kChunk == kChunkThreads, "a thread copies one");

// The state's unit: accumulators times `unit` are the state, whose values are below `bound`.
struct StateUnit {
  float unit, bound;

  // With values up to 2^15 in that unit: float16 has one more power of two, for what rounding adds.
  ELASTIC_D static float of(float bound) { return power_of_two_above(fmaxf(bound, 0x1p-100f)) * 0x1p-15f; }
};

template <typename Operand, int kWidth>
struct ChunkTiles {
  using Rows = SharedTile<Operand, kChunk, kMaxChunkState>;
  using Channels = SharedTile<Operand, kChunk, kWidth>;
  using State = SharedTile<Operand, kMaxChunkState, kWidth>;
  static constexpr int kElements = 3 * Rows::kElements + 2 * Channels::kElements + State::kElements;
  static constexpr int kBytes = kElements * static_cast<int>(sizeof(Operand));

  ELASTIC_D explicit ChunkTiles(Operand* first) : first_(first) {}
  ELASTIC_D Rows c() const { return Rows(first_); }
  ELASTIC_D Rows b(int stage) const { return Rows(first_ + (1 + stage) * Rows::kElements); }
  ELASTIC_D State state() const { return State(first_ + 3 * Rows::kElements); }
  ELASTIC_D Channels x(int stage) const {
    return Channels(first_ + 3 * Rows::kElements + State::kElements + stage * Channels::kElements);
  }

 private:
  Operand* first_;
};

struct ChunkPlace {
  int b, head, group, first, channels;  // [first, first + channels) of the head
  int length;
};

template <int kWidth>
ELASTIC_D ChunkPlace chunk_place(const Args& args) {
  const Shape& shape = args.shape;
  const int tiles = divide_up(shape.head_dim, kWidth), head = static_cast<int>(blockIdx.x) / tiles;
  const int first = static_cast<int>(blockIdx.x) % tiles * kWidth, left = shape.head_dim - first;
  const int b = static_cast<int>(blockIdx.y);
  return {b, head, head / heads_per_group(shape), first, left < kWidth ? left : kWidth, real_tokens(args, b)};
}

// Where the block reads, but for what its output needs.
struct ChunkView {
  OperandRows x, b, c;
  const float* dt;     // [T] of the head
  const float* state;  // [channels, N]
  float* state_out;

  ELASTIC_D ChunkView(const Args& args, const PrefillWorkspace& workspace, const ChunkPlace& place)
      : x(args, workspace, place.b, place.head * args.shape.head_dim + place.first, place.channels),
        b(args, workspace, place.b, b_channel(args.shape, place.group), args.shape.state_size),
        c(args, workspace, place.b, c_channel(args.shape, place.group), args.shape.state_size),
        dt(workspace.dt_of(args.shape, place.b, place.head)),
        state(args.ssm_state + ssm_state_offset(args.shape, place.b, place.head) + place.first * args.shape.state_size),
        state_out(args.ssm_state_out + ssm_state_offset(args.shape, place.b, place.head) +
                  place.first * args.shape.state_size) {}
};

// What becomes of y: itself in float32, for gated_norm. It takes the place of x, whose chunk is in shared memory by then.
struct PlainOutput {
  struct Raw {};
  float* first;   // of token 0
  int64_t pitch;  // from token to token

  ELASTIC_D PlainOutput(const Args& args, const PrefillWorkspace& workspace, const ChunkPlace& place)
      : first(workspace.token(args.shape, place.b, 0) + place.head * args.shape.head_dim + place.first),
        pitch(conv_channels(args.shape)) {}
  ELASTIC_D static Raw load(int, int) { return {}; }
  ELASTIC_D void store(int token, int channel, const Pack<float, 2>& y, Raw) const {
    store_pack(first + token * pitch + channel, y);
  }
};

// Or q = y * silu(z), in the place of the mixer's output, for norm_in_place. T must have the range of float32.
template <typename T>
struct GatedOutput {
  using Raw = Pack<T, 2>;
  Input<T> z;  // of token 0, as is
  T* q;
  int64_t z_pitch, q_pitch;

  ELASTIC_D GatedOutput(const Args& args, const PrefillWorkspace&, const ChunkPlace& place)
      : z(TokenView<T>(args, place.b, 0).z.from(place.head * args.shape.head_dim + place.first)),
        q(output_row<T>(args, place.b, 0) + place.head * args.shape.head_dim + place.first),
        z_pitch(projected_width(args.shape)),
        q_pitch(inner_channels(args.shape)) {}
  ELASTIC_D Raw load(int token, int channel) const { return z.from(token * z_pitch).template pack<2>(channel); }
  ELASTIC_D void store(int token, int channel, const Pack<float, 2>& y, const Raw& gate) const {
    Raw gated;
    ELASTIC_UNROLL
    for (int v = 0; v < 2; ++v) gated.at[v] = from_float<T>(y.at[v] * silu(to_float(gate.at[v])));
    store_pack(q + token * q_pitch + channel, gated);
  }
};

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

// Starts the copies of rows [0, tokens) of one tile; what is not there becomes zero. A thread has one column of pieces.
template <typename Operand, int kColumns>
ELASTIC_D void stage_tile(const SharedTile<Operand, kChunk, kColumns>& tile, const OperandRows& rows, int first,
                          int tokens) {
  constexpr int kPieces = kColumns / kOperandPiece, kRows = kChunkThreads / kPieces;  // of a pass
  const int begin = static_cast<int>(threadIdx.x / kPieces);
  const int column = static_cast<int>(threadIdx.x % kPieces) * kOperandPiece;
  const Operand* const from = rows.template operands<Operand>(first + begin) + column;
  ELASTIC_UNROLL
  for (int pass = 0; pass < divide_up(kChunk, kRows); ++pass) {
    const int row = begin + pass * kRows;
    if (begin < kRows && row < kChunk)
      copy_async_or_zero<16>(tile.at(row, column), from + pass * rows.template stride<Operand>(kRows),
                             row < tokens && column < rows.count);
  }
}

// Starts the copies of the chunk that begins with token `first`.
template <typename Operand, int kWidth>
ELASTIC_D void stage_chunk(const ChunkView& view, const ChunkPlace& place, int first, int stage,
                           const ChunkTiles<Operand, kWidth>& tiles, float* raw) {
  const int left = place.length - first, tokens = left < kChunk ? left : kChunk;
  const int token = static_cast<int>(threadIdx.x) % kChunk, kind = static_cast<int>(threadIdx.x) / kChunk;
  const float* const from = kind == 0   ? view.dt + first + token
                            : kind == 1 ? view.x.unit(first + token)
                            : kind == 2 ? view.b.unit(first + token)
                                        : view.c.unit(first + token);
  copy_async_or_zero<4>(raw + threadIdx.x, from, token < tokens);
  stage_tile(tiles.c(), view.c, first, tokens);
  stage_tile(tiles.b(stage), view.b, first, tokens);
  stage_tile(tiles.x(stage), view.x, first, tokens);
}

// The sum, or the maximum, over lanes [0, lane].
template <typename Combine>
ELASTIC_D float scan_lanes(float value, Combine combine) {
  ELASTIC_UNROLL
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const float before = __shfl_up_sync(kAllLanes, value, distance);
    if (static_cast<int>(threadIdx.x) % kWarp >= distance) value = combine(value, before);
  }
  return value;
}
// The lane below's value; `none` in lane 0.
ELASTIC_D float lane_below(float value, float none) {
  const float before = __shfl_up_sync(kAllLanes, value, 1);
  return threadIdx.x % kWarp == 0 ? none : before;
}

// One warp, two tokens a lane: everything that depends on dt. The state's unit becomes that of the next state; returns
// what multiplies the accumulators meanwhile.
ELASTIC_D float chunk_decays(const float* raw, float log2_a, float skip, const ChunkScalars& scalars,
                             StateUnit& state) {
  constexpr int kTokens = kChunk / kWarp, kPartLanes = kPart / kTokens;
  static_assert(kTokens == 2, "a pair of tokens a lane");
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float cum[kTokens], weight[kTokens], largest[kTokens];

  ELASTIC_UNROLL
  for (int i = 0; i < kTokens; ++i) {
    const int token = lane * kTokens + i;
    cum[i] = raw[token] * log2_a;
    weight[i] = raw[token] * raw[kChunk + token] * raw[2 * kChunk + token];
    largest[i] = fabsf(weight[i]);
  }
  const float through = scan_lanes(cum[0] + cum[1], [](float a, float b) { return a + b; });
  cum[0] += lane_below(through, 0.f);
  cum[1] = through;
  const float most = scan_lanes(fmaxf(largest[0], largest[1]), [](float a, float b) { return fmaxf(a, b); });
  largest[0] = fmaxf(largest[0], lane_below(most, 0.f));
  largest[1] = most;

  const float part_end = __shfl_sync(kAllLanes, cum[1], lane | (kPartLanes - 1));
  const float chunk_end = __shfl_sync(kAllLanes, cum[1], kWarp - 1), decay = quick_exp2(chunk_end);
  float to_end[kTokens], sum = 0.f;
  ELASTIC_UNROLL
  for (int i = 0; i < kTokens; ++i) {
    to_end[i] = quick_exp2(fminf(chunk_end - cum[i], 0.f)) * weight[i];
    sum += fabsf(to_end[i]);
  }
  ELASTIC_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(kAllLanes, sum, mask);
  // |x| and |B| are below 1 in their units: no value of the state grows by more than the sum.
  const float bound = fmaf(decay, state.bound, sum), unit = StateUnit::of(bound);

  ELASTIC_UNROLL
  for (int i = 0; i < kTokens; ++i) {
    const int token = lane * kTokens + i;
    // The floors keep the inverse, and what the state brings, finite.
    const float row_unit = power_of_two_above(fmaxf(largest[i], fmaxf(state.unit * 0x1p-80f, 0x1p-100f)));
    const float inverse = inverse_power(row_unit);
    scalars.at(Scalar::kCum, token) = cum[i];
    scalars.at(Scalar::kWeight, token) = weight[i];
    scalars.at(Scalar::kToPartEnd, token) = quick_exp2(fminf(part_end - cum[i], 0.f)) * weight[i];
    scalars.at(Scalar::kToChunkEnd, token) = to_end[i] * inverse_power(unit);
    scalars.at(Scalar::kUnit, token) = inverse;
    scalars.at(Scalar::kCarry, token) = quick_exp2(cum[i]) * (state.unit * inverse);
    scalars.at(Scalar::kOut, token) = raw[3 * kChunk + token] * row_unit;
    scalars.at(Scalar::kSkip, token) = skip * raw[kChunk + token];
  }
  const float factor = decay * (state.unit * inverse_power(unit));
  state = {unit, bound};
  return factor;
}

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
  ELASTIC_D float largest() const {
    float most = 0.f;
    ELASTIC_UNROLL
    for (int n = 0; n < kParts; ++n) {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; ++e) most = fmaxf(most, fabsf(at[n].at[e]));
    }
    return most;
  }
  ELASTIC_D void multiply(float factor) {
    ELASTIC_UNROLL
    for (int n = 0; n < kParts; ++n) {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; ++e) at[n].at[e] *= factor;
    }
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
      for (int n = 0; n < kParts; ++n) raw[r][n] = output.load(row, channel(n) < block.channels ? channel(n) : 0);
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
  // What tokens of this chunk add, 16 of them at a time.
  ELASTIC_D void within_chunk(const Tiles& tiles, int stage, const ChunkScalars& scalars) {
    ELASTIC_ROLLED
    for (int part = 0; part <= place.part; ++part) {
      Accumulator products[2];
      ELASTIC_UNROLL
      for (int k = 0; k < kSteps; ++k) {
        FragmentB b[2];
        load_b_transposed(tiles.b(stage), part * kPart, k * kPart, b);
        multiply_add<Operand>(products[0], c[k], b[0]);
        multiply_add<Operand>(products[1], c[k], b[1]);
      }
      if (part == place.part)
        weigh_diagonal(products, scalars);
      else
        weigh(products, part, scalars);
      multiply_row(y, pack_a<Operand>(products[0], products[1]), tiles.x(stage), part * kPart, column());
    }
  }
  ELASTIC_D void store(const Output& output, const ChunkPlace& block, int first, const Tiles& tiles, int stage,
                       const ChunkScalars& scalars) const {
    ELASTIC_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = token(r);
      if (first + row >= block.length) continue;
      const float out = scalars.at(Scalar::kOut, row), skip = scalars.at(Scalar::kSkip, row);
      ELASTIC_UNROLL
      for (int n = 0; n < kParts; ++n) {
        if (channel(n) >= block.channels) continue;
        const Pack<Operand, 2> x = load_pack<Operand, 2>(tiles.x(stage).at(row, channel(n)));
        const Pack<float, 2> sum = {{fmaf(y[n].at[2 * r], out, skip * to_float(x.at[0])),
                                     fmaf(y[n].at[2 * r + 1], out, skip * to_float(x.at[1]))}};
        output.store(first + row, channel(n), sum, raw[r][n]);
      }
    }
  }

 private:
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
  // Within 16 tokens the decay from each to each; what is above the diagonal is no part of the sum, whatever it is.
  ELASTIC_D void weigh_diagonal(Accumulator (&products)[2], const ChunkScalars& scalars) const {
    ELASTIC_UNROLL
    for (int e = 0; e < 8; ++e) {
      const int row = token(e % 4 / 2), column = place.part * kPart + e / 4 * 8 + Accumulator::column(e % 4);
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
  state.multiply(factor);
  ELASTIC_UNROLL
  for (int k = 0; k < kRowParts; ++k) {
    const FragmentA b = load_a_transposed(tiles.b(stage), k * kPart, state.row(0) / kPart * kPart);
    float weight[4];
    ELASTIC_UNROLL
    for (int i = 0; i < 4; ++i) weight[i] = scalars.at(Scalar::kToChunkEnd, k * kPart + FragmentA::column(i));
    multiply_row(state.at, scale_columns<Operand>(b, weight), tiles.x(stage), k * kPart, 0);
  }
}

// A row without tokens keeps its state bit for bit.
ELASTIC_D void keep_state(const ChunkView& view, int elements) {
  for (int i = static_cast<int>(threadIdx.x); i < elements; i += kChunkThreads) view.state_out[i] = view.state[i];
}

template <typename Output, typename Operand, int kWidth>
ELASTIC_D void scan_chunks(const Args& args, const PrefillWorkspace& workspace) {
  ELASTIC_DYNAMIC_SHARED(Operand, elements);
  ELASTIC_SHARED(float, scalar_values, ChunkScalars::kFloats);
  ELASTIC_SHARED(float, raw, kRawScalars * kChunk);
  ELASTIC_SHARED(float, state_units, 2);  // what multiplies the accumulators in this chunk, and their unit after it
  const ChunkTiles<Operand, kWidth> tiles(elements);
  const ChunkScalars scalars(scalar_values);
  const ChunkPlace place = chunk_place<kWidth>(args);
  const ChunkView view(args, workspace, place);
  const Output output(args, workspace, place);
  const int rows = args.shape.state_size, chunks = divide_up(place.length, kChunk);
  if (chunks == 0) return keep_state(view, place.channels * rows);

  // Load. Tokens first: the first chunk waits for them.
  stage_chunk(view, place, 0, 0, tiles, raw);
  commit_async();
  ChunkState<Operand, kWidth> state;
  state.load(view.state, place.channels, rows);
  const HeadParam a_log(args, args.a_log, place.head), d(args, args.d, place.head);

  // Compute, and load one chunk ahead.
  constexpr float kLog2E = 1.44269504f;
  const float log2_a = -expf(a_log.value(args.head_param)) * kLog2E, skip = d.value(args.head_param);
  StateUnit unit = {1.f, block_max<kChunkThreads>(state.largest())};
  unit.unit = StateUnit::of(unit.bound);
  state.multiply(inverse_power(unit.unit));
  state.hand_over(tiles.state());
  for (int i = 0; i < chunks; ++i) {
    const int stage = i % 2;
    wait_async<0>();
    __syncthreads();  // the chunk, and the state before it, are there
    if (threadIdx.x < kWarp) {
      const float factor = chunk_decays(raw, log2_a, skip, scalars, unit);
      if (threadIdx.x == 0) {
        state_units[0] = factor;
        state_units[1] = unit.unit;
      }
    }
    ChunkRows<Operand, kWidth, Output> chunk;
    chunk.load(output, place, i * kChunk);
    chunk.carry_in(tiles);
    __syncthreads();  // C, the state's copy and the raw scalars have been read, and the decays are there
    if (i + 1 < chunks) stage_chunk(view, place, (i + 1) * kChunk, (i + 1) % 2, tiles, raw);
    commit_async();
    chunk.decay_carry(scalars);
    chunk.within_chunk(tiles, stage, scalars);
    chunk.store(output, place, i * kChunk, tiles, stage, scalars);
    advance_state(state, tiles, stage, scalars, state_units[0]);
    state.hand_over(tiles.state());
  }

  // Store.
  state.store(view.state_out, place.channels, rows, state_units[1]);
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
