// The language the kernels are written in: CUDA where nvcc compiles them, the host shim where g++ does.
// A kernel includes this file and nothing of CUDA's own.
#pragma once

#if defined(ELASTIC_HOST_SHIM)

#include "host_shim/cuda_shim.h"

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define ELASTIC_HD __host__ __device__ __forceinline__
#define ELASTIC_D __device__ __forceinline__
#define ELASTIC_UNROLL _Pragma("unroll")
// One array of shared memory, 16-byte aligned. The shim gives each array a heap block of its own.
#define ELASTIC_SHARED(type, name, count) __shared__ __align__(16) type name[count]

namespace elastic {
using float16 = __half;
using bfloat16 = __nv_bfloat16;

template <typename... Formal, typename... Actual>
cudaError_t launch(void (*kernel)(Formal...), dim3 grid, dim3 block, cudaStream_t stream, Actual... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

ELASTIC_D float to_float(float v) { return v; }
ELASTIC_D float to_float(float16 v) { return __half2float(v); }
ELASTIC_D float to_float(bfloat16 v) { return __bfloat162float(v); }

template <typename T>
ELASTIC_D T from_float(float v);
template <>
ELASTIC_D float from_float<float>(float v) {
  return v;
}
template <>
ELASTIC_D float16 from_float<float16>(float v) {
  return __float2half_rn(v);
}
template <>
ELASTIC_D bfloat16 from_float<bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

// Within two ulp, without the branches of an exact division; 0 where b overflows to infinity.
ELASTIC_D float quick_divide(float a, float b) { return __fdividef(a, b); }

// 16 bytes from global to shared memory without passing through registers; a plain copy before sm_80.
ELASTIC_D void copy_async16(float* shared, const float* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(address), "l"(global) : "memory");
#else
  *reinterpret_cast<float4*>(shared) = *reinterpret_cast<const float4*>(global);
#endif
}
// Closes a group of copies; wait_async<n> waits until at most n groups are under way.
ELASTIC_D void commit_async() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
template <int kGroups>
ELASTIC_D void wait_async() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kGroups) : "memory");
#endif
}
}  // namespace elastic

#endif

namespace elastic {
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

ELASTIC_HD constexpr int divide_up(int a, int b) { return (a + b - 1) / b; }

// `count` neighbours of type T, read and written as one access.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T at[kCount];
};

template <typename T, int kCount>
ELASTIC_D Pack<T, kCount> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}
template <typename T, int kCount>
ELASTIC_D void store_pack(T* to, const Pack<T, kCount>& pack) {
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

// The sum of `value` over the block, in every thread; the same order whatever the timing. kThreads: block
// size.
template <int kThreads>
ELASTIC_D float block_sum(float value) {
  ELASTIC_SHARED(float, partial, kThreads / kWarp);
  ELASTIC_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += __shfl_xor_sync(kAllLanes, value, mask);
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = value;
  __syncthreads();
  float sum = 0.f;
  ELASTIC_UNROLL
  for (int warp = 0; warp < kThreads / kWarp; ++warp) sum += partial[warp];
  return sum;
}
}  // namespace elastic
