// What device.cuh takes from CUDA, each thing by one name; host_shim/cuda_shim.h has the same for g++.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define ELASTIC_HD __host__ __device__ __forceinline__
#define ELASTIC_D __device__ __forceinline__
#define ELASTIC_UNROLL _Pragma("unroll")
#define ELASTIC_UNROLL_4 _Pragma("unroll 4")
#define ELASTIC_ROLLED _Pragma("unroll 1")
// One array of shared memory, 16-byte aligned. The shim gives each array a heap block of its own.
#define ELASTIC_SHARED(type, name, count) __shared__ __align__(16) type name[count]
// The array whose size in bytes the launch gives.
#define ELASTIC_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char elastic_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(elastic_dynamic_shared)

namespace elastic {
using float16 = __half;
using bfloat16 = __nv_bfloat16;

// A block whose arrays and dynamic shared memory together take more than 48 KiB must be allowed the latter first.
template <typename Kernel>
cudaError_t allow_shared(Kernel* kernel, int shared_bytes) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess || attributes.sharedSizeBytes + shared_bytes <= 48 * 1024) return error;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
}

// A launch with `shared_bytes` of dynamic shared memory.
template <typename... Formal, typename... Actual>
cudaError_t launch_with_shared(void (*kernel)(Formal...), dim3 grid, dim3 block, int shared_bytes, cudaStream_t stream,
                               Actual... args) {
  if (shared_bytes > 0)
    if (const cudaError_t error = allow_shared(kernel, shared_bytes)) return error;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, args...);
}
template <typename... Formal, typename... Actual>
cudaError_t launch(void (*kernel)(Formal...), dim3 grid, dim3 block, cudaStream_t stream, Actual... args) {
  return launch_with_shared(kernel, grid, block, 0, stream, args...);
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

// Within two ulp; 0 where the result is below the normal range.
ELASTIC_D float quick_exp2(float v) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(v));
  return out;
}

// Within one ulp; 0 where v is above 2^126.
ELASTIC_D float quick_reciprocal(float v) {
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(v));
  return out;
}

// A load of what no thread of the launch writes (ld.global.nc): it may pass every store and barrier.
template <typename T>
ELASTIC_D T load_constant(const T* from) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16, "one access");
  T value;
  if constexpr (sizeof(T) == 2) {
    const auto word = __ldg(reinterpret_cast<const unsigned short*>(from));
    __builtin_memcpy(&value, &word, sizeof value);
  } else if constexpr (sizeof(T) == 4) {
    const auto word = __ldg(reinterpret_cast<const unsigned*>(from));
    __builtin_memcpy(&value, &word, sizeof value);
  } else if constexpr (sizeof(T) == 8) {
    const auto word = __ldg(reinterpret_cast<const uint2*>(from));
    __builtin_memcpy(&value, &word, sizeof value);
  } else {
    const auto word = __ldg(reinterpret_cast<const uint4*>(from));
    __builtin_memcpy(&value, &word, sizeof value);
  }
  return value;
}

// Brings a cache line to the second level, for a later load.
ELASTIC_D void prefetch_l2(const void* line) { asm volatile("prefetch.global.L2 [%0];" ::"l"(line)); }

// A barrier of all kThreads of a block, which warps may come to from different places of the program, as they may not to
// __syncthreads, nor to bar.sync, the aligned form of this. kId: 1 to 15; whoever meets must name the same.
template <int kId, int kThreads>
ELASTIC_D void meet() {
  static_assert(0 < kId && kId < 16 && kThreads % 32 == 0, "a barrier of whole warps; 0 is __syncthreads's");
  asm volatile("barrier.sync %0, %1;" ::"n"(kId), "n"(kThreads) : "memory");
}

// Adds one, or goes back to zero from `limit`; returns the value before. What this thread wrote before, and what it
// was told of at a barrier, is there for whoever has seen the new value and then fences.
ELASTIC_D unsigned atomic_inc_release(unsigned* address, unsigned limit) {
  unsigned old;
  asm volatile("atom.release.gpu.global.inc.u32 %0, [%1], %2;" : "=r"(old) : "l"(address), "r"(limit) : "memory");
  return old;
}
ELASTIC_D void fence_acquire() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

ELASTIC_D float float_of_bits(unsigned bits) { return __uint_as_float(bits); }
ELASTIC_D unsigned bits_of_float(float value) { return __float_as_uint(value); }
ELASTIC_D float16 half_of_bits(unsigned short bits) { return __ushort_as_half(bits); }

// kBytes (4, 8 or 16) from global to shared memory without passing through registers; a plain copy before sm_80.
template <int kBytes>
ELASTIC_D void copy_async(void* shared, const void* global) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "the widths of cp.async");
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(address), "l"(global) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;\n" ::"r"(address), "l"(global), "n"(kBytes) : "memory");
#else
  if constexpr (kBytes == 16)
    *static_cast<float4*>(shared) = *static_cast<const float4*>(global);
  else if constexpr (kBytes == 8)
    *static_cast<float2*>(shared) = *static_cast<const float2*>(global);
  else
    *static_cast<float*>(shared) = *static_cast<const float*>(global);
#endif
}
// The same, or zeros where there is nothing to copy: `global` is not read then, whatever it is.
template <int kBytes>
ELASTIC_D void copy_async_or_zero(void* shared, const void* global, bool exists) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "the widths of cp.async");
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const int read = exists ? kBytes : 0;
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(global), "r"(read) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(address), "l"(global), "n"(kBytes), "r"(read)
                 : "memory");
#else
  const float4 zero = {};
  if (exists)
    copy_async<kBytes>(shared, global);
  else
    copy_async<kBytes>(shared, &zero);
#endif
}
// Two neighbours of a fragment in one register, the first in the lower half.
template <typename T>
ELASTIC_D uint32_t pack_pair(float first, float second);
template <>
ELASTIC_D uint32_t pack_pair<float16>(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof bits);
  return bits;
}
template <>
ELASTIC_D uint32_t pack_pair<bfloat16>(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// ldmatrix.x4: of four 8x8 matrices, whose rows the lanes name, to each lane its pair of each; all lanes of the warp.
template <bool kTransposed>
ELASTIC_D void load_matrices(const void* row, uint32_t (&pairs)[4]) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(address)
                 : "memory");
}
// mma.m16n8k16 with float32 sums; all lanes of the warp.
template <typename T>
ELASTIC_D void multiply_add_fragments(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define ELASTIC_MMA(type, name)                                                                             \
  template <>                                                                                               \
  ELASTIC_D void multiply_add_fragments<type>(float(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) { \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                                     \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                     \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                       \
  }
ELASTIC_MMA(float16, "f16")
ELASTIC_MMA(bfloat16, "bf16")
#undef ELASTIC_MMA
#else  // sm_75: two products of half the depth, whose fragments are halves of ours; of float16 alone
template <>
ELASTIC_D void multiply_add_fragments<float16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  ELASTIC_UNROLL
  for (int k = 0; k < 2; ++k)
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
}
template <>  // ops refuse such a call before a launch
ELASTIC_D void multiply_add_fragments<bfloat16>(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2]) {
  __trap();
}
#endif

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
