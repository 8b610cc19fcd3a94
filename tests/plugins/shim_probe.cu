// Small kernels with known faults, and the shim's conversions, for test_host_shim.py and test_races.py:
// shim_probe WHAT.
#include <cstdio>
#include <cstring>

#include "device.cuh"

namespace {

using namespace elastic;

__global__ void good(float* out) {
  ELASTIC_SHARED(float, values, 64);
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  float sum = values[63 - threadIdx.x];
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(kAllLanes, sum, mask);
  out[threadIdx.x] = sum;
}
// A hundred times the value of the lane three below, a lane's own where there is none; that of lane 5; the warp.
__global__ void shuffles(float* out) {
  const float mine = static_cast<float>(threadIdx.x);
  const auto warp = static_cast<float>(warp_index());
  out[threadIdx.x] = 100.f * __shfl_up_sync(kAllLanes, mine, 3) + __shfl_sync(kAllLanes, mine, 5) + 10000.f * warp;
}
// What a copy brings, and what it leaves where there is nothing to copy.
__global__ void zeros(float* out) {
  ELASTIC_SHARED(float, values, 64);
  out[threadIdx.x] = 1.f;
  copy_async_or_zero<4>(values + threadIdx.x, out + threadIdx.x, threadIdx.x % 3 != 0);
  commit_async();
  wait_async<0>();
  out[threadIdx.x] = values[threadIdx.x];
}
// A copy of 16 bytes that begins, or ends up, at a multiple of 4 only: a card traps.
__global__ void copy_from_odd_place(float* out) {
  ELASTIC_SHARED(float, values, 64);
  copy_async<16>(values, out + 1);
}
__global__ void copy_to_odd_place(float* out) {
  ELASTIC_SHARED(float, values, 64);
  copy_async_or_zero<16>(values + 1, out, false);
}
// Of two groups one is waited for.
__global__ void copy_left_behind(float* out) {
  ELASTIC_SHARED(float, values, 64);
  copy_async<4>(values + threadIdx.x, out + threadIdx.x);
  commit_async();
  copy_async<4>(values + threadIdx.x, out + threadIdx.x);
  commit_async();
  wait_async<1>();
}
// Groups of nothing are none.
__global__ void empty_group(float* out) {
  commit_async();
  out[threadIdx.x] = 1.f;
}
__global__ void missing_barrier(float* out) {
  ELASTIC_SHARED(float, values, 64);
  values[threadIdx.x] = 1.f;
  out[threadIdx.x] = values[63 - threadIdx.x];
}
__global__ void past_the_end(float* out) {
  ELASTIC_SHARED(float, values, 63);
  values[threadIdx.x] = 1.f;
  out[threadIdx.x] = values[threadIdx.x];
}
__global__ void half_a_barrier(float* out) {
  if (threadIdx.x < 32) __shfl_xor_sync(kAllLanes, 1.f, threadIdx.x == 3 ? 0 : 1);
  if (threadIdx.x % 2 == 0) __shfl_xor_sync(kAllLanes, 1.f, 2);
  out[threadIdx.x] = 1.f;
}
// Two halves of a block meet from different places of the program, as often as the second says.
template <int kFirst, int kSecond, int kTimes, int kThreads = 64>
__global__ void meetings(float* out) {
  ELASTIC_SHARED(float, values, 64);
  values[threadIdx.x] = 1.f;
  if (threadIdx.x < 32) {
    meet<kFirst, kThreads>();
    meet<kFirst, kThreads>();
  } else {
    for (int i = 0; i < kTimes; ++i) meet<kSecond, kThreads>();
  }
  out[threadIdx.x] = values[63 - threadIdx.x];
}
__global__ void global_past_the_end(float* out) { out[threadIdx.x + 1] = 1.f; }
// A shuffle brings a value and orders no other.
__global__ void ordered_by_a_shuffle(float* out) {
  ELASTIC_SHARED(float, values, 64);
  values[threadIdx.x] = 1.f;
  __shfl_xor_sync(kAllLanes, 1.f, 1);
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}
// The same of ldmatrix, whose rows other lanes write.
__global__ void rows_of_other_lanes(float* out) {
  ELASTIC_SHARED(uint32_t, rows, 64 * 4);
  for (int i = 0; i < 4; ++i) rows[threadIdx.x * 4 + i] = threadIdx.x;
  uint32_t pairs[4];
  load_matrices<false>(rows + threadIdx.x * 4, pairs);
  out[threadIdx.x] = static_cast<float>(pairs[0]);
}
// What is copied is read before it is waited for, or copied over after; the thread alone sees all of it.
__global__ void copy_read_early(float* out) {
  ELASTIC_SHARED(float, values, 64);
  copy_async<4>(values + threadIdx.x, out + threadIdx.x);
  commit_async();
  const float early = values[threadIdx.x];
  wait_async<0>();
  out[threadIdx.x] = early;
}
__global__ void copy_waited_for_by_another(float* out) {
  ELASTIC_SHARED(float, values, 64);
  copy_async<4>(values + threadIdx.x, out + threadIdx.x);
  commit_async();
  __syncthreads();
  const float early = values[63 - threadIdx.x];
  wait_async<0>();
  __syncthreads();
  out[threadIdx.x] = early;
}
// The last block to come adds what all have left, once with the fence and once without.
template <bool kFence>
__global__ void last_block(float* out, unsigned* counter) {
  out[blockIdx.x * 64 + threadIdx.x] = 1.f;
  ELASTIC_SHARED(unsigned, before, 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    before[0] = atomic_inc_release(counter, gridDim.x - 1);
    if constexpr (kFence) fence_acquire();
  }
  __syncthreads();
  if (before[0] != gridDim.x - 1) return;
  float sum = 0.f;
  for (unsigned block = 0; block < gridDim.x; ++block) sum += out[block * 64 + threadIdx.x];
  out[threadIdx.x] = sum;
}
// A load that may pass the barrier before it.
__global__ void constant_that_is_written(float* out) {
  const float mine = static_cast<float>(threadIdx.x);
  out[threadIdx.x] = mine;
  __syncthreads();
  const float other = load_constant(out + (threadIdx.x ^ 1));
  __syncthreads();
  out[threadIdx.x] = other;
}
__global__ void halves(std::uint16_t* out, const float* in) {
  const unsigned i = blockIdx.x * 64 + threadIdx.x;
  out[2 * i] = from_float<float16>(in[i]).bits;
  out[2 * i + 1] = from_float<bfloat16>(in[i]).bits;
}
__global__ void floats(float* out) {
  const auto bits = static_cast<std::uint16_t>(blockIdx.x * 64 + threadIdx.x);
  out[2 * bits] = to_float(float16{bits});
  out[2 * bits + 1] = to_float(bfloat16{bits});
}

void show(void (*kernel)(float*)) {
  void* out;
  (void)cudaMalloc(&out, 64 * sizeof(float));
  (void)launch(kernel, dim3(1), dim3(64), nullptr, static_cast<float*>(out));
  for (int i = 0; i < 64; ++i) std::printf("%g\n", static_cast<float*>(out)[i]);
  (void)cudaFree(out);
}

template <bool kFence>
void show_last_block() {
  constexpr int kBlocks = 5;
  void *out, *counter;
  (void)cudaMalloc(&out, kBlocks * 64 * sizeof(float));
  (void)cudaMalloc(&counter, sizeof(unsigned));
  (void)cudaMemset(counter, 0, sizeof(unsigned));
  (void)launch(last_block<kFence>, dim3(kBlocks), dim3(64), nullptr, static_cast<float*>(out),
               static_cast<unsigned*>(counter));
  for (int i = 0; i < 64; ++i) std::printf("%g\n", static_cast<float*>(out)[i]);
  (void)cudaFree(out);
  (void)cudaFree(counter);
}

// Floats from standard input to both narrow types; then all narrow values to float.
void convert() {
  constexpr int kCount = 65536;
  static float in[kCount], out[2 * kCount];
  static std::uint16_t narrow[2 * kCount];
  if (std::fread(in, sizeof(float), kCount, stdin) != kCount) return;
  (void)launch(halves, dim3(kCount / 64), dim3(64), nullptr, narrow, static_cast<const float*>(in));
  (void)launch(floats, dim3(kCount / 64), dim3(64), nullptr, out);
  std::fwrite(narrow, sizeof narrow, 1, stdout);
  std::fwrite(out, sizeof out, 1, stdout);
}

}  // namespace

int main(int count, char** words) {
  const char* what = count > 1 ? words[1] : "";
  shim::set_order(shim::Order::kRandom, 1);
  if (std::strcmp(what, "good") == 0) show(good);
  if (std::strcmp(what, "shuffles") == 0) show(shuffles);
  if (std::strcmp(what, "zeros") == 0) show(zeros);
  if (std::strcmp(what, "copy_from_odd_place") == 0) show(copy_from_odd_place);
  if (std::strcmp(what, "copy_to_odd_place") == 0) show(copy_to_odd_place);
  if (std::strcmp(what, "copy_left_behind") == 0) show(copy_left_behind);
  if (std::strcmp(what, "empty_group") == 0) show(empty_group);
  if (std::strcmp(what, "missing_barrier") == 0) show(missing_barrier);
  if (std::strcmp(what, "past_the_end") == 0) show(past_the_end);
  if (std::strcmp(what, "half_a_barrier") == 0) show(half_a_barrier);
  if (std::strcmp(what, "meetings") == 0) show(meetings<1, 1, 2>);
  if (std::strcmp(what, "meetings_at_two_barriers") == 0) show(meetings<1, 2, 2>);
  if (std::strcmp(what, "one_meeting_of_two") == 0) show(meetings<1, 1, 1>);
  if (std::strcmp(what, "meetings_of_half_a_block") == 0) show(meetings<1, 1, 2, 32>);
  if (std::strcmp(what, "global_past_the_end") == 0) show(global_past_the_end);
  if (std::strcmp(what, "ordered_by_a_shuffle") == 0) show(ordered_by_a_shuffle);
  if (std::strcmp(what, "rows_of_other_lanes") == 0) show(rows_of_other_lanes);
  if (std::strcmp(what, "copy_read_early") == 0) show(copy_read_early);
  if (std::strcmp(what, "copy_waited_for_by_another") == 0) show(copy_waited_for_by_another);
  if (std::strcmp(what, "last_block") == 0) show_last_block<true>();
  if (std::strcmp(what, "last_block_without_a_fence") == 0) show_last_block<false>();
  if (std::strcmp(what, "constant_that_is_written") == 0) show(constant_that_is_written);
  if (std::strcmp(what, "convert") == 0) convert();
  return 0;
}
