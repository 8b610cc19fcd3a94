// One token of every row in one launch: convolution, state update, gate and grouped norm.
//
// Grid (H, tiles, B), four warps a block. A block owns some rows of one head's state [P, N] and reads and writes them
// once. The few convolution channels of its group's B and C it computes for itself: cheaper than a second launch, and
// free of races because the new convolution state goes to another buffer. The last block of a group to finish
// normalises the group, so its values must be seen by all: they go through the workspace.
//
// A row of length 0 takes the same way, with its states stored as they were: a branch before the loads would add the
// latency of `length` to every step. Only for K = 4, N and the channels of a group multiples of 4 (decodes in
// select.h).
#pragma once

#include "decode_conv.cuh"
#include "gated_norm.cuh"
#include "maths.h"
#include "views.cuh"

namespace elastic::mamba2 {

constexpr int kDecodeThreads = 128;
constexpr int kDecodeRowsPerWarp = 4;
static_assert(kDecodeRows == kDecodeThreads / kWarp * kDecodeRowsPerWarp, "rows a block holds at a time");
static_assert(kDecodeThreads == kNormThreads, "the last block runs the norm");

// Blocks that a multiprocessor must be able to hold, which bounds the registers. 8, that is 64 registers a thread, make
// the 640 blocks of one sequence of the 12B shape one wave on the 84 multiprocessors of an RTX 5080. Cards of data
// centres have 108 and more, where 7 do; there, before sm_86 and for wider activations, 64 would not suffice.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ < 860 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000)
constexpr int kDecodeBlocks = 7;
#else
constexpr int kDecodeBlocks = 8;
#endif
template <typename T>
constexpr int decode_resident_blocks(int chunks) {
  return chunks == 2 ? 4 : (sizeof(T) > 2 ? 4 : kDecodeBlocks);
}

// What a block works on: rows [begin, end) of one head. `heads`: those of a group; a division less before the first
// load.
struct DecodePlace {
  int b, head, group;
  int head_of_group;  // 0 .. heads of a group - 1
  int begin, end;
  bool first_of_group;  // writes the group's B and C channels of the convolution state
  int blocks_per_group;
};

ELASTIC_D DecodePlace decode_place(const Shape& shape, int passes, int heads) {
  const int head = static_cast<int>(blockIdx.x), tile = static_cast<int>(blockIdx.y);
  const int group = head / heads, rows = passes * kDecodeRows, begin = tile * rows;
  const int end = begin + rows < shape.head_dim ? begin + rows : shape.head_dim;
  return {static_cast<int>(blockIdx.z),
          head,
          group,
          head - group * heads,
          begin,
          end,
          tile == 0 && head == group * heads,
          static_cast<int>(gridDim.y) * heads};
}

// Where the block reads and writes. The state is no Input: it may be updated in place, every element by the thread that
// read it.
template <typename T>
struct DecodeView {
  const float* state;  // [P, N] of the head
  float* state_out;
  DecodeConvView<T> conv;
  Input<T> z, dt;        // of the block's rows and of the head
  float* gated;          // [channels of a group] of the workspace, and so
  Input<T> norm_weight;  // the norm's
  T* y;
  unsigned* counter;
  int x_channel, b_channel, c_channel;  // of the convolution, where those of the block begin

  ELASTIC_D DecodeView(const Args& args, const DecodePlace& place, int group_channels)
      : state(args.ssm_state + ssm_state_offset(args.shape, place.b, place.head)),
        state_out(args.ssm_state_out + ssm_state_offset(args.shape, place.b, place.head)),
        conv(args, place.b),
        z(TokenView<T>(args, place.b, 0).z.from(place.head * args.shape.head_dim + place.begin)),
        dt(TokenView<T>(args, place.b, 0).dt.from(place.head)),
        gated(args.workspace + static_cast<int64_t>(place.b) * inner_channels(args.shape) +
              place.group * group_channels),
        norm_weight(Input<T>(args.norm_weight).from(place.group * group_channels)),
        y(output_row<T>(args, place.b, 0) + place.group * group_channels),
        counter(args.counters + place.b * args.shape.groups + place.group),
        x_channel(place.head * args.shape.head_dim + place.begin),
        b_channel(mamba2::b_channel(args.shape, place.group)),
        c_channel(mamba2::c_channel(args.shape, place.group)) {}
};

// A lane's share of one row: four neighbours in each chunk of 128.
template <int kChunks>
struct RowSlice {
  Pack<float, 4> at[kChunks];
};

ELASTIC_D int slice_column(int chunk) { return (chunk * kWarp + static_cast<int>(threadIdx.x) % kWarp) * 4; }

// The rows a warp holds in one pass.
template <int kChunks>
struct WarpRows {
  RowSlice<kChunks> row[kDecodeRowsPerWarp];
};

ELASTIC_D int warp_row(int pass_begin, int r) {
  return pass_begin + static_cast<int>(threadIdx.x) / kWarp * kDecodeRowsPerWarp + r;
}

// The state passes by once: streaming accesses keep it from displacing the weights in the cache.
template <int kChunks>
ELASTIC_D WarpRows<kChunks> load_rows(const float* state, int columns, int pass_begin, int end) {
  WarpRows<kChunks> rows = {};
  ELASTIC_UNROLL
  for (int r = 0; r < kDecodeRowsPerWarp; ++r) {
    const int row = warp_row(pass_begin, r);
    ELASTIC_UNROLL
    for (int chunk = 0; chunk < kChunks; ++chunk)
      if (row < end && slice_column(chunk) < columns)
        rows.row[r].at[chunk] = load_streaming(state + row * columns + slice_column(chunk));
  }
  return rows;
}

template <int kChunks>
ELASTIC_D void store_rows(float* state, int columns, int pass_begin, int end, const WarpRows<kChunks>& rows) {
  ELASTIC_UNROLL
  for (int r = 0; r < kDecodeRowsPerWarp; ++r) {
    const int row = warp_row(pass_begin, r);
    ELASTIC_UNROLL
    for (int chunk = 0; chunk < kChunks; ++chunk)
      if (row < end && slice_column(chunk) < columns)
        store_streaming(state + row * columns + slice_column(chunk), rows.row[r].at[chunk]);
  }
}

// This token's values that all threads of a block share.
template <int kChunks>
struct DecodeToken {
  static constexpr int kColumns = kChunks * 4 * kWarp;
  float *b, *c;  // [kColumns], zero past N
  float* x;      // [rows of the block]
  float* gate;   // [rows of the block], silu(z)
};

// What one thread loads for DecodeToken: pairs lane, lane + 128, ... of the columns of B and then C, and row `lane` of
// x and z. A thread that has none loads the first one: at the end of a branch around the loads it would wait for them.
template <typename T, int kChunks>
class TokenLoads {
 public:
  ELASTIC_D TokenLoads(const DecodeView<T>& view, int rows, int columns) {
    ELASTIC_UNROLL
    for (int i = 0; i < kChunks; ++i) pair_[i].load(view.conv, column(i) < columns ? channel(view, i) : view.b_channel);
    load_row(view, lane() < rows ? lane() : 0);
  }

  // To shared memory, and the convolution's state on to the next token.
  ELASTIC_D void finish(const DecodeView<T>& view, const DecodeToken<kChunks>& token, int rows, int columns,
                        bool first_of_group, bool real) {
    ELASTIC_UNROLL
    for (int i = 0; i < kChunks; ++i) {
      const bool exists = column(i) < columns;
      Pack<float, 2> value = pair_[i].value();
      if (!exists) value = {};
      store_pack((is_c(i) ? token.c : token.b) + column(i), value);
      if (exists && first_of_group) pair_[i].move_on(view.conv, channel(view, i), real);
    }
    for (int row = lane(); row < rows; row += kDecodeThreads) {
      if (row >= kDecodeThreads) load_row(view, row);
      token.x[row] = x_.value().at[0];
      token.gate[row] = silu(to_float(z_));
      x_.move_on(view.conv, view.x_channel + row, real);
    }
  }

 private:
  static constexpr int kPairs = DecodeToken<kChunks>::kColumns / 2;  // of B, and of C
  ELASTIC_D static int lane() { return static_cast<int>(threadIdx.x); }
  ELASTIC_D static bool is_c(int i) { return lane() + i * kDecodeThreads >= kPairs; }
  ELASTIC_D static int column(int i) { return (lane() + i * kDecodeThreads) % kPairs * 2; }
  ELASTIC_D static int channel(const DecodeView<T>& view, int i) {
    return (is_c(i) ? view.c_channel : view.b_channel) + column(i);
  }
  ELASTIC_D void load_row(const DecodeView<T>& view, int row) {
    x_.load(view.conv, view.x_channel + row);
    z_ = view.z[row];
  }

  TokenTaps<T, 2> pair_[kChunks];
  TokenTaps<T, 1> x_;
  T z_;
};

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
    const Pack<float, 4> b = load_pack<float, 4>(token.b + slice_column(chunk));
    const Pack<float, 4> c = load_pack<float, 4>(token.c + slice_column(chunk));
    ELASTIC_UNROLL
    for (int r = 0; r < kDecodeRowsPerWarp; ++r) {
      ELASTIC_UNROLL
      for (int e = 0; e < 4; ++e) {
        float& state = rows.row[r].at[chunk].at[e];
        state = next_state<kNearOne>(state, factor, dtx[r], b.at[e]);
        dot[r] = fmaf(state, c.at[e], dot[r]);
      }
    }
  }
  return sum_four(dot);
}

// True in every thread of the last block of its group; the counter wraps back to zero for the next call. The barriers
// hand what one thread's fences order to the whole block: a fence in every thread of every block would wait for the
// block's stores of the state, and empty the first-level cache under its neighbours.
ELASTIC_D bool last_of_group(unsigned* counter, int blocks) {
  ELASTIC_SHARED(int, is_last, 1);
  __syncthreads();  // the block's gated values before its tick
  if (threadIdx.x == 0) {
    const unsigned limit = static_cast<unsigned>(blocks) - 1;
    is_last[0] = atomic_inc_release(counter, limit) == limit;
    if (is_last[0]) fence_acquire();
  }
  __syncthreads();  // the other blocks' ticks before reads of their gated values
  return is_last[0] != 0;
}

// What the norm reads: written by other blocks of this launch, so past the first-level cache and not as an Input.
struct FinishedValues {
  using Raw = Pack<float, 4>;
  const float* q;
  ELASTIC_D Raw load(int c) const { return load_shared_level(q + c); }
  ELASTIC_D static Pack<float, 4> value(const Raw& raw) { return raw; }
};

// The norm's weights were displaced by the model's since the last step: they come to the second level meanwhile.
template <typename T>
ELASTIC_D void prefetch_weights(Input<T> weight, int channels) {
  constexpr int kLine = 128 / sizeof(T);
  ELASTIC_ROLLED
  for (int c = static_cast<int>(threadIdx.x) * kLine; c < channels; c += kDecodeThreads * kLine)
    prefetch_l2(weight.address(c));
}

template <typename T, int kChunks>
__global__ void __launch_bounds__(kDecodeThreads, decode_resident_blocks<T>(kChunks))
    decode_step(Args args, int passes, int heads) {
  using Token = DecodeToken<kChunks>;
  ELASTIC_SHARED(float, b_values, Token::kColumns);
  ELASTIC_SHARED(float, c_values, Token::kColumns);
  ELASTIC_SHARED(float, x_values, kMaxHeadDim);
  ELASTIC_SHARED(float, gates, kMaxHeadDim);
  const Token token = {b_values, c_values, x_values, gates};
  const int columns = args.shape.state_size;
  const DecodePlace place = decode_place(args.shape, passes, heads);
  const int channels = heads * args.shape.head_dim;  // of a group
  const DecodeView<T> view(args, place, channels);

  // Load. The state's way is the longest, so it goes first; nothing is waited for before all is under way.
  if (place.first_of_group) prefetch_weights(view.norm_weight, channels);
  WarpRows<kChunks> rows = load_rows<kChunks>(view.state, columns, place.begin, place.end);
  TokenLoads<T, kChunks> loads(view, place.end - place.begin, columns);
  const int64_t length = Input<int64_t>(args.length)[place.b];
  const T raw_dt = view.dt[0];
  const HeadParam a_log(args, args.a_log, place.head), bias(args, args.dt_bias, place.head),
      skip(args, args.d, place.head);

  // Compute.
  const bool real = length > 0;
  loads.finish(view, token, place.end - place.begin, columns, place.first_of_group, real);
  const float dt = time_step(to_float(raw_dt), bias.value(args.head_param), args.time_step_min, args.time_step_max);
  const Decay decay = decay_of(dt, -expf(a_log.value(args.head_param)));
  const float d = skip.value(args.head_param);
  __syncthreads();  // the token's values before any thread reads them

  for (int begin = place.begin; begin < place.end; begin += kDecodeRows) {
    if (begin > place.begin) rows = load_rows<kChunks>(view.state, columns, begin, place.end);
    float dtx[kDecodeRowsPerWarp], dot = 0.f;
    ELASTIC_UNROLL
    for (int r = 0; r < kDecodeRowsPerWarp; ++r) {
      const int row = warp_row(begin, r);
      dtx[r] = row < place.end ? dt * token.x[row - place.begin] : 0.f;
    }
    if (real)
      dot = decay.near_one ? update_rows<true>(rows, token, dtx, decay.factor)
                           : update_rows<false>(rows, token, dtx, decay.factor);

    // Store.
    store_rows(view.state_out, columns, begin, place.end, rows);
    const int row = warp_row(begin, sum_four_row()), at = row - place.begin;
    if (threadIdx.x % 8 == 0 && row < place.end)
      view.gated[place.head_of_group * args.shape.head_dim + row] = fmaf(d, token.x[at], dot) * token.gate[at];
  }

  if (last_of_group(view.counter, place.blocks_per_group))
    normalise_group<4>(FinishedValues{view.gated}, view.norm_weight, view.y, channels, args.epsilon);
}

}  // namespace elastic::mamba2
