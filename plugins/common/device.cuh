// The language the kernels are written in: CUDA where nvcc compiles them, the host shim where g++ does.
// A kernel includes this file and nothing of CUDA's own.
#pragma once

#if defined(ELASTIC_HOST_SHIM)

#include "host_shim/cuda_shim.h"

#else

#include "cuda_device.cuh"

#endif

#include <type_traits>

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

// Four floats that pass by once (evict first), and as other blocks of the launch have left them (not from the first
// level of the cache).
ELASTIC_D Pack<float, 4> pack_of(const float4& v) { return {{v.x, v.y, v.z, v.w}}; }
ELASTIC_D Pack<float, 4> load_streaming(const float* from) {
  return pack_of(__ldcs(reinterpret_cast<const float4*>(from)));
}
ELASTIC_D Pack<float, 4> load_shared_level(const float* from) {
  return pack_of(__ldcg(reinterpret_cast<const float4*>(from)));
}
ELASTIC_D void store_streaming(float* to, const Pack<float, 4>& v) {
  __stcs(reinterpret_cast<float4*>(to), float4{v.at[0], v.at[1], v.at[2], v.at[3]});
}

// A tensor, or a part of one, that the kernel only reads.
template <typename T>
class Input {
 public:
  ELASTIC_D explicit Input(const void* first) : first_(static_cast<const T*>(first)) {}
  ELASTIC_D Input from(int64_t offset) const { return Input(first_ + offset); }

  ELASTIC_D T operator[](int i) const { return load_constant(first_ + i); }
  template <int kCount>
  ELASTIC_D Pack<T, kCount> pack(int i) const {
    return load_constant(reinterpret_cast<const Pack<T, kCount>*>(first_ + i));
  }
  ELASTIC_D const T* address(int64_t i) const { return first_ + i; }

 private:
  const T* __restrict__ first_;
};

// The elements of one register of a fragment, the lower half first.
template <typename T>
ELASTIC_D Pack<T, 2> unpack_pair(uint32_t bits) {
  Pack<T, 2> pair;
  __builtin_memcpy(&pair, &bits, sizeof pair);
  return pair;
}

// Words of memory as the float32 of kCount elements of type T. bfloat16 is the upper half of it: one operation each.
template <typename T, int kCount, int kWords>
ELASTIC_D Pack<float, kCount> floats_of_words(const Pack<uint32_t, kWords>& words) {
  static_assert(sizeof(T) * kCount == sizeof words, "all of them");
  Pack<float, kCount> out;
  if constexpr (std::is_same_v<T, bfloat16>) {
    ELASTIC_UNROLL
    for (int v = 0; v < kCount; ++v)
      out.at[v] = float_of_bits(v % 2 == 0 ? words.at[v / 2] << 16 : words.at[v / 2] & 0xffff0000u);
  } else {
    Pack<T, kCount> values;
    __builtin_memcpy(&values, &words, sizeof values);
    ELASTIC_UNROLL
    for (int v = 0; v < kCount; ++v) out.at[v] = to_float(values.at[v]);
  }
  return out;
}

// The thread's warp of the block. All lanes of the warp take part: what one of them says is to ptxas the same for all,
// so that no branch on it may part them.
ELASTIC_D int warp_index() { return __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarp, 0); }

// The largest `value` of the block, in every thread. kThreads: block size. At most once a kernel, and so is block_sum:
// no barrier stands behind the reads of `partial`, so a second call would overwrite what a slow warp has yet to read.
template <int kThreads>
ELASTIC_D float block_max(float value) {
  ELASTIC_SHARED(float, partial, kThreads / kWarp);
  ELASTIC_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, mask));
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = value;
  __syncthreads();
  float most = partial[0];
  ELASTIC_UNROLL
  for (int warp = 1; warp < kThreads / kWarp; ++warp) most = fmaxf(most, partial[warp]);
  return most;
}

// The sum of `value` over the block, in every thread; the same order whatever the timing. kThreads: block size.
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
