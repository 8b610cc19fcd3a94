// A block of chunk_prefill: its place, where it reads and writes, its tiles in shared memory, and the copies that fill
// them.
#pragma once

#include "../common/tile.cuh"
#include "chunk_scalars.cuh"
#include "maths.h"
#include "operand_rows.cuh"
#include "views.cuh"

namespace elastic::mamba2 {

constexpr int kChunkWarps = 8;
constexpr int kChunkThreads = kChunkWarps * kWarp;

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

// What becomes of y: itself in float32, for gated_norm. It takes the place of x, whose chunk is in shared memory by
// then.
struct PlainOutput {
  struct Raw {};
  float* first;   // of token 0
  int64_t pitch;  // from token to token

  ELASTIC_D PlainOutput(const Args& args, const PrefillWorkspace& workspace, const ChunkPlace& place)
      : first(workspace.token(args.shape, place.b, 0) + place.head * args.shape.head_dim + place.first),
        pitch(conv_channels(args.shape)) {}
  ELASTIC_D const float* address(int, int) const { return first; }
  ELASTIC_D static const float* below(const float* row, int) { return row; }
  ELASTIC_D static Raw load(const float*) { return {}; }
  ELASTIC_D void store(int token, int channel, const Pack<float, 2>& y, Raw) const {
    store_pack(first + token * pitch + channel, y);
  }
};

// Or q = y * silu(z), in the place of the mixer's output, for norm_in_place. T must have the range of float32.
template <typename T>
struct GatedOutput {
  using Raw = Pack<uint32_t, 1>;  // two of T in a word, until they are used: taken apart they would be waited for
  Input<T> z;                     // of token 0, as is
  T* q;
  int64_t z_pitch, q_pitch;

  ELASTIC_D GatedOutput(const Args& args, const PrefillWorkspace&, const ChunkPlace& place)
      : z(TokenView<T>(args, place.b, 0).z.from(place.head * args.shape.head_dim + place.first)),
        q(output_row<T>(args, place.b, 0) + place.head * args.shape.head_dim + place.first),
        z_pitch(projected_width(args.shape)),
        q_pitch(inner_channels(args.shape)) {}
  // Of z, and so many tokens further on.
  ELASTIC_D const T* address(int token, int channel) const { return z.address(token * z_pitch + channel); }
  ELASTIC_D const T* below(const T* at, int tokens) const { return at + tokens * z_pitch; }
  ELASTIC_D static Raw load(const T* at) { return Input<uint32_t>(at).template pack<1>(0); }
  ELASTIC_D void store(int token, int channel, const Pack<float, 2>& y, const Raw& gate) const {
    const Pack<float, 2> by = floats_of_words<T, 2>(gate);
    const uint32_t gated = pack_pair<T>(y.at[0] * quick_silu(by.at[0]), y.at[1] * quick_silu(by.at[1]));
    *reinterpret_cast<uint32_t*>(q + token * q_pitch + channel) = gated;
  }
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

// Starts the copies of rows [0, tokens) of one tile by kThreads threads, of which this is `thread`; what is not there
// becomes zero. A thread has one column of pieces.
template <int kThreads, typename Operand, int kColumns>
ELASTIC_D void stage_tile(const SharedTile<Operand, kChunk, kColumns>& tile, const OperandRows& rows, int first,
                          int tokens, int thread) {
  constexpr int kPieces = kColumns / kOperandPiece, kRows = kThreads / kPieces;  // of a pass
  // Then no branch stands between the copies, and each one's address is a step from the last one's.
  constexpr bool kEveryThread = kThreads % kPieces == 0 && kChunk % kRows == 0;
  const int begin = thread / kPieces, column = thread % kPieces * kOperandPiece;
  const Operand* from = rows.template operands<Operand>(first + begin) + column;
  const int there = column < rows.count ? tokens - begin : 0;  // rows from the thread's first on
  ELASTIC_UNROLL
  for (int pass = 0; pass < divide_up(kChunk, kRows); ++pass, from += rows.template stride<Operand>(kRows)) {
    const int row = begin + pass * kRows;
    if (kEveryThread || (begin < kRows && row < kChunk))
      copy_async_or_zero<16>(tile.at(row, column), from, pass * kRows < there);
  }
}

// Tokens of the chunk that begins with token `first`.
ELASTIC_D int chunk_tokens(const ChunkPlace& place, int first) {
  const int left = place.length - first;
  return left < kChunk ? left : kChunk;
}

// Starts the copies of B and x of that chunk, which have two stages: as soon as the chunk two before it is done.
template <typename Operand, int kWidth>
ELASTIC_D void stage_b_and_x(const ChunkView& view, const ChunkPlace& place, int first, int stage,
                             const ChunkTiles<Operand, kWidth>& tiles) {
  const int tokens = chunk_tokens(place, first);
  stage_tile<kChunkThreads>(tiles.b(stage), view.b, first, tokens, static_cast<int>(threadIdx.x));
  stage_tile<kChunkThreads>(tiles.x(stage), view.x, first, tokens, static_cast<int>(threadIdx.x));
}

// And of C, which has one: when that of the chunk before it has been read.
template <typename Operand, int kWidth>
ELASTIC_D void stage_c(const ChunkView& view, const ChunkPlace& place, int first,
                       const ChunkTiles<Operand, kWidth>& tiles) {
  stage_tile<kChunkThreads>(tiles.c(), view.c, first, chunk_tokens(place, first), static_cast<int>(threadIdx.x));
}

// And of what its scalars are reckoned from, by one warp: a lane has tokens of its own.
ELASTIC_D void stage_raw(const ChunkView& view, const ChunkPlace& place, int first, float* raw) {
  const int tokens = chunk_tokens(place, first), lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto stage = [&](int kind, const float* of_kind, int step) {
    ELASTIC_UNROLL
    for (int i = 0; i < kLaneTokens; ++i) {
      const int token = lane * kLaneTokens + i;
      copy_async_or_zero<4>(raw + kind * kChunk + token, of_kind + static_cast<int64_t>(first + token) * step,
                            token < tokens);
    }
  };
  stage(0, view.dt, 1);
  stage(1, view.x.unit(0), view.x.pitch);
  stage(2, view.b.unit(0), view.b.pitch);
  stage(3, view.c.unit(0), view.c.pitch);
}

// A row without tokens keeps its state bit for bit.
template <int kThreads>
ELASTIC_D void keep_state(const ChunkView& view, int elements) {
  for (int i = static_cast<int>(threadIdx.x); i < elements; i += kThreads) view.state_out[i] = view.state[i];
}

}  // namespace elastic::mamba2
