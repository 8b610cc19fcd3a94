// One token of every row in one launch: convolution, state update, gate and grouped norm.
//
// Grid (tiles*H, B), four warps a block. A block owns some rows of one head's state [P, N] and reads and
// writes them once. The few convolution channels of its group's B and C it computes for itself: cheaper than
// a second launch, and free of races because the new convolution state goes to another buffer. The last block
// of a group to finish normalises the group, so its values must be seen by all: they go through the
// workspace.
#pragma once

#include "decode_conv.cuh"
#include "gated_norm.cuh"
#include "maths.h"
#include "tensors.cuh"

namespace elastic::mamba2 {

constexpr int kDecodeThreads = 128;
constexpr int kDecodeRowsPerWarp = 4;
constexpr int kDecodeRows = kDecodeThreads / kWarp * kDecodeRowsPerWarp;  // rows a block holds at a time
// Blocks that a multiprocessor must be able to hold, which bounds the registers: 72 a thread in the common
// case.
constexpr int decode_resident_blocks(bool vector, int chunks) { return chunks == 2 ? 4 : (vector ? 7 : 5); }
static_assert(kDecodeThreads == kNormThreads, "the last block runs the norm");

// What a block works on: rows [begin, end) of one head.
struct DecodePlace {
  int b, head, group, begin, end;
  bool first_of_group;  // writes the group's B and C channels of the convolution state
  int blocks_per_group;
};

ELASTIC_D DecodePlace decode_place(const Shape& shape, int passes) {
  const int rows = passes * kDecodeRows, tiles = divide_up(shape.head_dim, rows);
  const int tile = static_cast<int>(blockIdx.x) % tiles, head = static_cast<int>(blockIdx.x) / tiles;
  const int heads = heads_per_group(shape), begin = tile * rows;
  const int end = begin + rows < shape.head_dim ? begin + rows : shape.head_dim;
  return {static_cast<int>(blockIdx.y),   head,         head / heads, begin, end,
          tile == 0 && head % heads == 0, tiles * heads};
}

// A lane's share of one row: four neighbours in each chunk of 128.
template <int kChunks>
struct RowSlice {
  float at[kChunks * 4];
};

ELASTIC_D int slice_column(int chunk) { return (chunk * kWarp + static_cast<int>(threadIdx.x) % kWarp) * 4; }

// The state passes by once: streaming accesses keep it from displacing the weights in the cache.
template <bool kVector, int kChunks>
ELASTIC_D RowSlice<kChunks> load_row(const float* row, int columns) {
  RowSlice<kChunks> slice;
  ELASTIC_UNROLL
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int column = slice_column(chunk);
    float4 v{0.f, 0.f, 0.f, 0.f};
    if constexpr (kVector) {
      if (column < columns) v = __ldcs(reinterpret_cast<const float4*>(row + column));
    } else {
      if (column + 0 < columns) v.x = __ldcs(row + column + 0);
      if (column + 1 < columns) v.y = __ldcs(row + column + 1);
      if (column + 2 < columns) v.z = __ldcs(row + column + 2);
      if (column + 3 < columns) v.w = __ldcs(row + column + 3);
    }
    slice.at[chunk * 4 + 0] = v.x;
    slice.at[chunk * 4 + 1] = v.y;
    slice.at[chunk * 4 + 2] = v.z;
    slice.at[chunk * 4 + 3] = v.w;
  }
  return slice;
}

template <bool kVector, int kChunks>
ELASTIC_D void store_row(float* row, int columns, const RowSlice<kChunks>& slice) {
  ELASTIC_UNROLL
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int column = slice_column(chunk);
    const float* v = slice.at + chunk * 4;
    if constexpr (kVector) {
      if (column < columns) __stcs(reinterpret_cast<float4*>(row + column), float4{v[0], v[1], v[2], v[3]});
    } else {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; ++e)
        if (column + e < columns) __stcs(row + column + e, v[e]);
    }
  }
}

// The rows a warp holds in one pass.
template <int kChunks>
struct WarpRows {
  RowSlice<kChunks> row[kDecodeRowsPerWarp];
};

ELASTIC_D int warp_row(int pass_begin, int r) {
  return pass_begin + static_cast<int>(threadIdx.x) / kWarp * kDecodeRowsPerWarp + r;
}

template <bool kVector, int kChunks>
ELASTIC_D WarpRows<kChunks> load_rows(const Args& args, const DecodePlace& place, int pass_begin) {
  const int columns = args.shape.state_size;
  const float* state = args.ssm_state + ssm_state_offset(args.shape, place.b, place.head);
  WarpRows<kChunks> rows;
  ELASTIC_UNROLL
  for (int r = 0; r < kDecodeRowsPerWarp; ++r) {
    const int row = warp_row(pass_begin, r);
    rows.row[r] = load_row<kVector, kChunks>(state + row * columns, row < place.end ? columns : 0);
  }
  return rows;
}

template <bool kVector, int kChunks>
ELASTIC_D void store_rows(const Args& args, const DecodePlace& place, int pass_begin,
                          const WarpRows<kChunks>& rows) {
  const int columns = args.shape.state_size;
  float* state = args.ssm_state_out + ssm_state_offset(args.shape, place.b, place.head);
  ELASTIC_UNROLL
  for (int r = 0; r < kDecodeRowsPerWarp; ++r) {
    const int row = warp_row(pass_begin, r);
    store_row<kVector, kChunks>(state + row * columns, row < place.end ? columns : 0, rows.row[r]);
  }
}

// Length 0: both states as they were, bit for bit.
template <typename T, bool kVector, int kChunks>
ELASTIC_D void keep_states(const Args& args, const DecodePlace& place) {
  const Shape& shape = args.shape;
  const int64_t offset = conv_state_offset(shape, place.b);
  const T* old = static_cast<const T*>(args.conv_state) + offset;
  T* fresh = static_cast<T*>(args.conv_state_out) + offset;
  const auto keep = [&](int first, int count) {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kDecodeThreads)
      for (int k = 0; k < shape.conv_width - 1; ++k) {
        const int at = k * conv_channels(shape) + first + i;
        fresh[at] = old[at];
      }
  };
  keep(place.head * shape.head_dim + place.begin, place.end - place.begin);
  if (place.first_of_group) {
    keep(b_channel(shape, place.group), shape.state_size);
    keep(c_channel(shape, place.group), shape.state_size);
  }
  if (args.ssm_state_out == args.ssm_state) return;
  for (int begin = place.begin; begin < place.end; begin += kDecodeRows)
    store_rows<kVector, kChunks>(args, place, begin, load_rows<kVector, kChunks>(args, place, begin));
}

// This token's values that all threads of a block share.
template <int kChunks>
struct DecodeToken {
  static constexpr int kColumns = kChunks * 4 * kWarp;
  float* values;  // B [kColumns] and C [kColumns], both zero past N, and x [rows of the block]
  float* gates;   // [rows of the block], silu(z)

  ELASTIC_D const float* b() const { return values; }
  ELASTIC_D const float* c() const { return values + kColumns; }
  ELASTIC_D const float* x() const { return values + 2 * kColumns; }
};

// The convolution channel behind DecodeToken::values[i], or -1 where there is none.
template <int kColumns>
ELASTIC_D int decode_channel(const Shape& shape, const DecodePlace& place, int i) {
  if (i >= 2 * kColumns) return place.head * shape.head_dim + place.begin + i - 2 * kColumns;
  if (i % kColumns >= shape.state_size) return -1;
  return (i < kColumns ? b_channel(shape, place.group) : c_channel(shape, place.group)) + i % kColumns;
}

// Every load of the first pieces is under way before the first value is used: their latencies overlap, where
// a loop of load, compute and store would add them up. B and C are 2*kColumns channels, x mostly fits the
// piece after them.
template <typename T, int kChunks>
ELASTIC_D void fill_four(const Args& args, const DecodePlace& place, const DecodeToken<kChunks>& token) {
  constexpr int kColumns = DecodeToken<kChunks>::kColumns, kPieces = 2 * kColumns / kDecodeThreads + 1;
  const int lane = static_cast<int>(threadIdx.x), count = 2 * kColumns + place.end - place.begin;
  FourTaps<T> pieces[kPieces];
  ELASTIC_UNROLL
  for (int piece = 0; piece < kPieces; ++piece) {
    const int i = lane + piece * kDecodeThreads;
    const int channel = i < count ? decode_channel<kColumns>(args.shape, place, i) : -1;
    if (channel >= 0) pieces[piece].load(args, place.b, channel);
  }
  const auto finish = [&](const FourTaps<T>& taps, int i, int channel) {
    if (channel >= 0 && (i >= 2 * kColumns || place.first_of_group)) taps.move_on(args, place.b, channel);
    token.values[i] = channel < 0 ? 0.f : taps.value();
  };
  ELASTIC_UNROLL
  for (int piece = 0; piece < kPieces; ++piece) {
    const int i = lane + piece * kDecodeThreads;
    if (i < count) finish(pieces[piece], i, decode_channel<kColumns>(args.shape, place, i));
  }
  for (int i = lane + kPieces * kDecodeThreads; i < count; i += kDecodeThreads) {
    const int channel = decode_channel<kColumns>(args.shape, place, i);
    pieces[0].load(args, place.b, channel);
    finish(pieces[0], i, channel);
  }
}

template <typename T, int kChunks>
ELASTIC_D void fill_any(const Args& args, const DecodePlace& place, const DecodeToken<kChunks>& token) {
  constexpr int kColumns = DecodeToken<kChunks>::kColumns;
  const int count = 2 * kColumns + place.end - place.begin;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kDecodeThreads) {
    const int channel = decode_channel<kColumns>(args.shape, place, i);
    const bool writes = i >= 2 * kColumns || place.first_of_group;
    token.values[i] = channel < 0 ? 0.f : convolve_any<T>(args, place.b, channel, writes);
  }
}

template <typename T, int kChunks>
ELASTIC_D void fill_token(const Args& args, const DecodePlace& place, const DecodeToken<kChunks>& token) {
  const int rows = place.end - place.begin;
  const T* gate = projected_row<T>(args, place.b, 0) + place.head * args.shape.head_dim + place.begin;
  for (int row = static_cast<int>(threadIdx.x); row < rows; row += kDecodeThreads)
    token.gates[row] = silu(to_float(gate[row]));
  if (args.shape.conv_width == 4)
    fill_four<T>(args, place, token);
  else
    fill_any<T>(args, place, token);
}

// Sums each of four values over the warp. Exchanging halves of the values with halves of the lanes takes 6
// shuffles instead of 20; lane l ends with value 2*(l/16) + (l/8)%2.
ELASTIC_D float sum_four(const float (&v)[kDecodeRowsPerWarp]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool upper = lane & 16, odd = lane & 8;
  const float even_row = (upper ? v[2] : v[0]) + __shfl_xor_sync(kAllLanes, upper ? v[0] : v[2], 16);
  const float odd_row = (upper ? v[3] : v[1]) + __shfl_xor_sync(kAllLanes, upper ? v[1] : v[3], 16);
  float sum = (odd ? odd_row : even_row) + __shfl_xor_sync(kAllLanes, odd ? even_row : odd_row, 8);
  ELASTIC_UNROLL
  for (int mask = 4; mask > 0; mask /= 2) sum += __shfl_xor_sync(kAllLanes, sum, mask);
  return sum;
}
ELASTIC_D int sum_four_row() {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  return (lane >> 4) * 2 + ((lane >> 3) & 1);
}

// Moves a warp's rows on by one token and returns this lane's S*C (see sum_four).
template <bool kNearOne, int kChunks>
ELASTIC_D float update_rows(WarpRows<kChunks>& rows, const DecodeToken<kChunks>& token,
                            const float (&dtx)[kDecodeRowsPerWarp], float factor) {
  float dot[kDecodeRowsPerWarp] = {};
  ELASTIC_UNROLL
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const Pack<float, 4> b = load_pack<float, 4>(token.b() + slice_column(chunk));
    const Pack<float, 4> c = load_pack<float, 4>(token.c() + slice_column(chunk));
    ELASTIC_UNROLL
    for (int r = 0; r < kDecodeRowsPerWarp; ++r) {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; ++e) {
        float& state = rows.row[r].at[chunk * 4 + e];
        state = next_state<kNearOne>(state, factor, dtx[r], b.at[e]);
        dot[r] = fmaf(state, c.at[e], dot[r]);
      }
    }
  }
  return sum_four(dot);
}

// True in every thread of the last block of its group; the counter wraps back to zero for the next call.
ELASTIC_D bool last_of_group(const Args& args, const DecodePlace& place) {
  ELASTIC_SHARED(int, is_last, 1);
  __threadfence();  // this thread's gated values before the block's tick
  __syncthreads();
  if (threadIdx.x == 0) {
    const unsigned limit = static_cast<unsigned>(place.blocks_per_group) - 1;
    is_last[0] = atomicInc(&args.counters[place.b * args.shape.groups + place.group], limit) == limit;
  }
  __syncthreads();
  __threadfence();  // the block's tick before reads of the other blocks' values
  return is_last[0] != 0;
}

template <typename T, bool kVector, int kChunks>
__global__ void __launch_bounds__(kDecodeThreads, decode_resident_blocks(kVector, kChunks))
    decode_step(Args args, int passes) {
  ELASTIC_SHARED(float, values, 2 * DecodeToken<kChunks>::kColumns + kMaxHeadDim);
  ELASTIC_SHARED(float, gates, kMaxHeadDim);
  const DecodeToken<kChunks> token = {values, gates};
  const DecodePlace place = decode_place(args.shape, passes);

  // The state's way from memory is the longest: it starts before anything else and before length is known.
  const int length = real_tokens(args, place.b);
  WarpRows<kChunks> rows = load_rows<kVector, kChunks>(args, place, place.begin);
  if (length == 0) return keep_states<T, kVector, kChunks>(args, place);

  const float skip = head_param(args, args.d, place.head);
  const float a = -expf(head_param(args, args.a_log, place.head));
  const int dt_column = projected_width(args.shape) - args.shape.heads + place.head;
  const float dt =
      time_step(to_float(projected_row<T>(args, place.b, 0)[dt_column]),
                head_param(args, args.dt_bias, place.head), args.time_step_min, args.time_step_max);
  const Decay decay = decay_of(dt, a);
  fill_token<T>(args, place, token);
  __syncthreads();

  float* gated = args.workspace + static_cast<int64_t>(place.b) * inner_channels(args.shape);
  for (int begin = place.begin; begin < place.end; begin += kDecodeRows) {
    float dtx[kDecodeRowsPerWarp];
    ELASTIC_UNROLL
    for (int r = 0; r < kDecodeRowsPerWarp; ++r) {
      const int row = warp_row(begin, r);
      dtx[r] = row < place.end ? dt * token.x()[row - place.begin] : 0.f;
    }
    const float dot = decay.near_one ? update_rows<true>(rows, token, dtx, decay.factor)
                                     : update_rows<false>(rows, token, dtx, decay.factor);
    store_rows<kVector, kChunks>(args, place, begin, rows);
    const int row = warp_row(begin, sum_four_row());
    if (threadIdx.x % 8 == 0 && row < place.end) {
      const int at = row - place.begin;
      gated[place.head * args.shape.head_dim + row] = fmaf(skip, token.x()[at], dot) * token.gates[at];
    }
    if (begin + kDecodeRows < place.end) rows = load_rows<kVector, kChunks>(args, place, begin + kDecodeRows);
  }

  if (!last_of_group(args, place)) return;
  normalise_group(args, place.group, output_row<T>(args, place.b, 0),
                  [&](int c) { return __ldcg(gated + c); });
}

}  // namespace elastic::mamba2
