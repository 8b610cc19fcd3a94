// The selective scan of all tokens on CUDA cores, for any shape:
//   S_t = exp(dt*A) S_{t-1} + dt x (outer) B,   y = S C + D x
//
// Grid (tiles*H, B). A block owns up to `warps` times 4*kRows rows of one head's state and keeps them in
// registers from the first token to the last: state traffic is one read and one write a call. Eight lanes
// share a row, kRows rows a lane, so one load of B and C from shared memory serves kRows rows and a sum over
// N takes three shuffles a row or fewer. Tokens come in small chunks, the next one on its way while this one
// is computed.
#pragma once

#include "maths.h"
#include "prefill_workspace.cuh"
#include "views.cuh"

namespace elastic::mamba2 {

constexpr int kScanLanes = 8;   // lanes that share a row
constexpr int kScanTokens = 8;  // tokens of a chunk
constexpr int kScanMaxWarps = 8;

// A thread of kRows rows holds kSteps*4 columns of each: columns lane*4 + 32*step.
template <int kSteps, int kRows>
struct ScanTraits {
  static constexpr int kColumns = kSteps * kScanLanes * 4;
  static constexpr int kRowsPerWarp = kWarp / kScanLanes * kRows;
  static constexpr int kMaxRows = kRowsPerWarp * kScanMaxWarps;
};

struct ScanPlace {
  int b, head, group, begin, end;  // rows [begin, end) of the head
  int length;
};

template <typename Traits>
ELASTIC_D ScanPlace scan_place(const Args& args) {
  const Shape& shape = args.shape;
  const int rows = static_cast<int>(blockDim.x) / kWarp * Traits::kRowsPerWarp;
  const int tiles = divide_up(shape.head_dim, rows);
  const int begin = static_cast<int>(blockIdx.x) % tiles * rows, head = static_cast<int>(blockIdx.x) / tiles;
  const int end = begin + rows < shape.head_dim ? begin + rows : shape.head_dim;
  const int b = static_cast<int>(blockIdx.y);
  return {b, head, head / heads_per_group(shape), begin, end, real_tokens(args, b)};
}

// Where the block reads and writes. x is no Input: y takes its place, one chunk later.
struct ScanView {
  const float *b, *c;  // of token 0, as are
  float* x;            // the rows of the block, and
  const float* dt;     // [T] of the head
  int64_t pitch;       // from token to token of b, c and x
  const float* state;  // [P, N] of the head
  float* state_out;

  ELASTIC_D ScanView(const Args& args, const PrefillWorkspace& workspace, const ScanPlace& place)
      : b(workspace.token(args.shape, place.b, 0) + b_channel(args.shape, place.group)),
        c(workspace.token(args.shape, place.b, 0) + c_channel(args.shape, place.group)),
        x(workspace.token(args.shape, place.b, 0) + place.head * args.shape.head_dim + place.begin),
        dt(workspace.dt_of(args.shape, place.b, place.head)),
        pitch(conv_channels(args.shape)),
        state(args.ssm_state + ssm_state_offset(args.shape, place.b, place.head)),
        state_out(args.ssm_state_out + ssm_state_offset(args.shape, place.b, place.head)) {}
};

// One chunk of tokens in shared memory, in rows of fixed width.
template <typename Traits>
struct ScanChunk {
  float *b, *c;  // [kScanTokens, kColumns], zero past N
  float* x;      // [kScanTokens, kMaxRows]
  float* dt;     // [kScanTokens]
};

// Starts the copy of `count` floats of each token to rows of kPitch floats, kVec floats at a time.
template <int kPitch, int kVec>
ELASTIC_D void stage_rows(float* to, const float* from, int64_t pitch, int count, int tokens) {
  constexpr int kPieces = kPitch / kVec;  // a power of two: dividing by it is a shift
  for (int i = static_cast<int>(threadIdx.x); i < tokens * kPieces; i += static_cast<int>(blockDim.x)) {
    const int t = i / kPieces, at = i % kPieces * kVec;
    if (at < count) copy_async<kVec * sizeof(float)>(to + t * kPitch + at, from + t * pitch + at);
  }
}

// Starts the copies of the chunk that begins with token `first`.
template <typename Traits, int kVec>
ELASTIC_D void stage_chunk(const ScanView& view, const ScanPlace& place, int columns, int first,
                           const ScanChunk<Traits>& chunk) {
  const int left = place.length - first, tokens = left < kScanTokens ? left : kScanTokens;
  const int64_t skip = first * view.pitch;
  stage_rows<Traits::kColumns, kVec>(chunk.b, view.b + skip, view.pitch, columns, tokens);
  stage_rows<Traits::kColumns, kVec>(chunk.c, view.c + skip, view.pitch, columns, tokens);
  stage_rows<Traits::kMaxRows, kVec>(chunk.x, view.x + skip, view.pitch, place.end - place.begin, tokens);
  const int lane = static_cast<int>(threadIdx.x);
  if (lane < tokens) copy_async<sizeof(float)>(chunk.dt + lane, view.dt + first + lane);
}

// The state of a thread's rows.
template <int kSteps, int kRows>
struct ScanState {
  using Traits = ScanTraits<kSteps, kRows>;
  float at[kRows][kSteps * 4];

  ELASTIC_D static int column(int i) {
    return static_cast<int>(threadIdx.x) % kScanLanes * 4 + i / 4 * (kScanLanes * 4) + i % 4;
  }
  // First row of this thread within the block.
  ELASTIC_D static int first_row() { return static_cast<int>(threadIdx.x) / kScanLanes * kRows; }

  // Element by element: in accesses of four the compiler keeps the state twice.
  ELASTIC_D void load(const float* state, const ScanPlace& place, int columns) {
    each(place, columns, [&](int offset, float& value) { value = state[offset]; });
  }
  ELASTIC_D void store(float* state, const ScanPlace& place, int columns) {
    each(place, columns, [&](int offset, float& value) { state[offset] = value; });
  }

  // Moves all rows on by one token; dot[r] is this lane's part of S*C.
  template <bool kNearOne>
  ELASTIC_D void advance(const float* b, const float* c, const float (&dtx)[kRows], float factor, float (&dot)[kRows]) {
    ELASTIC_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      const Pack<float, 4> b4 = load_pack<float, 4>(b + column(step * 4));
      const Pack<float, 4> c4 = load_pack<float, 4>(c + column(step * 4));
      ELASTIC_UNROLL
      for (int r = 0; r < kRows; ++r) {
        ELASTIC_UNROLL
        for (int e = 0; e < 4; ++e) {
          float& state = at[r][step * 4 + e];
          state = next_state<kNearOne>(state, factor, dtx[r], b4.at[e]);
          dot[r] = fmaf(state, c4.at[e], dot[r]);
        }
      }
    }
  }

 private:
  // Visits the elements that exist; the others stay zero and meet zeros of B and C only.
  template <typename Visit>
  ELASTIC_D void each(const ScanPlace& place, int columns, Visit visit) {
    ELASTIC_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int row = place.begin + first_row() + r;
      ELASTIC_UNROLL
      for (int i = 0; i < kSteps * 4; ++i)
        if (row < place.end && column(i) < columns) visit(row * columns + column(i), at[r][i]);
    }
  }
};

// Sums each value over the eight lanes of a row. Lanes exchange halves of the rows while there are rows to
// halve, so row scan_sum_row() ends in this lane, with the same value in 8/kRows neighbours.
template <int kRows>
ELASTIC_D float scan_sum(const float (&dot)[kRows]) {
  static_assert(kRows == 2 || kRows == 4, "two or four rows a lane");
  const bool upper = threadIdx.x & 4;
  if constexpr (kRows == 2) {
    float sum = (upper ? dot[1] : dot[0]) + __shfl_xor_sync(kAllLanes, upper ? dot[0] : dot[1], 4);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    return sum + __shfl_xor_sync(kAllLanes, sum, 1);
  } else {
    const bool odd = threadIdx.x & 2;
    const float even_row = (upper ? dot[2] : dot[0]) + __shfl_xor_sync(kAllLanes, upper ? dot[0] : dot[2], 4);
    const float odd_row = (upper ? dot[3] : dot[1]) + __shfl_xor_sync(kAllLanes, upper ? dot[1] : dot[3], 4);
    const float sum = (odd ? odd_row : even_row) + __shfl_xor_sync(kAllLanes, odd ? even_row : odd_row, 2);
    return sum + __shfl_xor_sync(kAllLanes, sum, 1);
  }
}
template <int kRows>
ELASTIC_D int scan_sum_row() {
  return static_cast<int>(threadIdx.x) % kScanLanes / (kScanLanes / kRows);
}

// One chunk: the state moves on, y goes where x was.
template <int kSteps, int kRows>
ELASTIC_D void scan_chunk(const ScanView& view, const ScanPlace& place, float a, float skip, int first,
                          const ScanChunk<ScanTraits<kSteps, kRows>>& chunk, ScanState<kSteps, kRows>& state) {
  using Traits = ScanTraits<kSteps, kRows>;
  const int rows = place.end - place.begin, mine = state.first_row();
  const int out_row = mine + scan_sum_row<kRows>();
  const bool writes = static_cast<int>(threadIdx.x) % (kScanLanes / kRows) == 0 && out_row < rows;
  float* y = view.x + first * view.pitch + out_row;
  for (int t = 0; t < kScanTokens && first + t < place.length; ++t, y += view.pitch) {
    const float* x = chunk.x + t * Traits::kMaxRows;
    const float *b = chunk.b + t * Traits::kColumns, *c = chunk.c + t * Traits::kColumns;
    const float dt = chunk.dt[t];
    const Decay decay = decay_of(dt, a);
    float dtx[kRows], dot[kRows] = {};
    ELASTIC_UNROLL
    for (int r = 0; r < kRows; ++r) dtx[r] = mine + r < rows ? dt * x[mine + r] : 0.f;
    if (decay.near_one)
      state.template advance<true>(b, c, dtx, decay.factor, dot);
    else
      state.template advance<false>(b, c, dtx, decay.factor, dot);
    const float sum = scan_sum(dot);
    if (writes) *y = fmaf(skip, x[out_row], sum);
  }
}

template <int kSteps, int kRows, bool kVector>
__global__ void __launch_bounds__(kScanMaxWarps* kWarp, 1) scan_prefill(Args args, PrefillWorkspace workspace) {
  using Traits = ScanTraits<kSteps, kRows>;
  constexpr int kVec = kVector ? 4 : 1;
  constexpr int kWide = kScanTokens * Traits::kColumns, kTall = kScanTokens * Traits::kMaxRows;
  ELASTIC_SHARED(float, b_values, 2 * kWide);
  ELASTIC_SHARED(float, c_values, 2 * kWide);
  ELASTIC_SHARED(float, x_values, 2 * kTall);
  ELASTIC_SHARED(float, dt_values, 2 * kScanTokens);
  const auto stage = [&](int i) {
    const int s = i % 2;
    return ScanChunk<Traits>{b_values + s * kWide, c_values + s * kWide, x_values + s * kTall,
                             dt_values + s * kScanTokens};
  };
  const int columns = args.shape.state_size;
  const ScanPlace place = scan_place<Traits>(args);
  const ScanView view(args, workspace, place);
  const int chunks = divide_up(place.length, kScanTokens);

  // Load. Tokens first: the first chunk waits for them.
  if (chunks > 0) stage_chunk<Traits, kVec>(view, place, columns, 0, stage(0));
  commit_async();
  ScanState<kSteps, kRows> state = {};
  state.load(view.state, place, columns);
  const HeadParam a_log(args, args.a_log, place.head), d(args, args.d, place.head);
  for (int i = static_cast<int>(threadIdx.x); i < 2 * kWide; i += static_cast<int>(blockDim.x))
    if (i % Traits::kColumns >= columns) b_values[i] = c_values[i] = 0.f;

  // Compute, and load one chunk ahead.
  const float a = -expf(a_log.value(args.head_param)), skip = d.value(args.head_param);
  for (int i = 0; i < chunks; ++i) {
    if (i + 1 < chunks) stage_chunk<Traits, kVec>(view, place, columns, (i + 1) * kScanTokens, stage(i + 1));
    commit_async();
    wait_async<1>();
    __syncthreads();
    scan_chunk<kSteps, kRows>(view, place, a, skip, i * kScanTokens, stage(i), state);
    __syncthreads();  // everybody is done with this stage before it is filled again
  }

  // Store.
  state.store(view.state_out, place, columns);
}

}  // namespace elastic::mamba2
