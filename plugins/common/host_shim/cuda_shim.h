// The part of CUDA that our kernels use, for g++: they run on the CPU, one fiber a thread, so that the
// address sanitizer and random orders of execution find what a GPU would hide. It finds wrong indices,
// missing barriers, reads of unwritten shared memory, faulty tails and masks. Built with the thread sanitizer it finds
// races too: accesses that nothing orders, whatever order they came in (races.h). It does not model speed.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __launch_bounds__(...)
#define ELASTIC_HD inline
#define ELASTIC_D inline
#define ELASTIC_UNROLL
#define ELASTIC_UNROLL_4
#define ELASTIC_ROLLED
#define ELASTIC_SHARED(type, name, count) \
  static char name##_key;                 \
  type* const name = static_cast<type*>(::elastic::shim::shared(&name##_key, sizeof(type) * (count)))
#define ELASTIC_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(::elastic::shim::dynamic_shared())

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace elastic::shim {

// What a thread asks about itself; one block runs at a time.
struct Self {
  dim3 thread, block, block_size, grid_size;
};
extern Self* self;

[[noreturn]] void fail(const char* what);
// 0: __syncthreads.
void barrier(int id = 0);

// What the lanes of a warp give each other: all of them come with kLaneBytes at most, and go on with everybody's.
constexpr int kLanes = 32;
constexpr int kLaneBytes = 24;
struct Exchanged {
  alignas(8) unsigned char lane[kLanes][kLaneBytes];
};
// `finish`: run once, by the last lane to come, before any lane goes on, of instructions that take a whole warp. `name`:
// of the instruction, which must be one for all lanes.
using Finish = void (*)(Exchanged&);
const Exchanged& exchange(const char* name, const void* mine, std::size_t bytes, Finish finish = nullptr);
template <typename T>
T shuffle(T value, int source_lane);

// Copies that land no sooner than they are waited for, or at once, as a real card may have it: in forward order all of
// them late, in reversed order all at once, in random order by chance.
// From nullptr: zeros.
void copy_later(void* shared, const void* global, int bytes);
void close_copies();
void wait_copies(int groups);
// A load that may pass every store and barrier of its launch.
void load_any_time(const void* from, std::size_t bytes);
// The block's array of that key: poisoned with NaN when the block starts, freed when it ends.
void* shared(const void* key, std::size_t bytes);
// The array that the launch gave its size, of exactly that size.
void* dynamic_shared();

// Order of blocks, warps and lanes in all launches from now on.
enum class Order { kForward, kReversed, kRandom };
void set_order(Order order, std::uint64_t seed);

void run(const dim3& grid, const dim3& block, std::size_t shared_bytes, const std::function<void()>& kernel);

}  // namespace elastic::shim

#define threadIdx (::elastic::shim::self->thread)
#define blockIdx (::elastic::shim::self->block)
#define blockDim (::elastic::shim::self->block_size)
#define gridDim (::elastic::shim::self->grid_size)

inline void __syncthreads() { elastic::shim::barrier(); }
inline float __shfl_xor_sync(unsigned, float value, int mask) {
  return elastic::shim::shuffle(value, static_cast<int>(threadIdx.x % 32) ^ mask);
}
inline float __shfl_up_sync(unsigned, float value, int distance) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return elastic::shim::shuffle(value, lane < distance ? lane : lane - distance);
}
template <typename T>
inline T __shfl_sync(unsigned, T value, int lane) {
  return elastic::shim::shuffle(value, lane);
}
template <typename T>
inline T __ldcs(const T* from) {
  return *from;
}
template <typename T>
inline T __ldcg(const T* from) {
  return *from;
}
template <typename T>
inline void __stcs(T* to, T value) {
  *to = value;
}

// The runtime: device memory is the heap, every call is synchronous.
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrComputeCapabilityMajor = 75 };
inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "out of memory"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int) {
  constexpr int kMultiprocessors = 2, kCapability = 8;
  return *value = what == cudaDevAttrMultiProcessorCount ? kMultiprocessors : kCapability, cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, std::size_t bytes);  // exactly `bytes`: one more is a sanitizer error
cudaError_t cudaFree(void* memory);
inline cudaError_t cudaMemset(void* to, int byte, std::size_t bytes) {
  return std::memset(to, byte, bytes), cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}

namespace elastic {

struct float16 {
  std::uint16_t bits;
};
struct bfloat16 {
  std::uint16_t bits;
};
float to_float(float16 v);
float16 half_of(float v);

inline float to_float(float v) { return v; }
inline float to_float(bfloat16 v) {
  const std::uint32_t bits = static_cast<std::uint32_t>(v.bits) << 16;
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}
inline bfloat16 brain_of(float v) {
  std::uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  if (v != v) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};  // to nearest, ties to even
}

template <typename T>
T from_float(float v);
template <>
inline float from_float<float>(float v) {
  return v;
}
template <>
inline float16 from_float<float16>(float v) {
  return half_of(v);
}
template <>
inline bfloat16 from_float<bfloat16>(float v) {
  return brain_of(v);
}

inline float quick_divide(float a, float b) { return a / b; }
inline float quick_exp2(float v) {
  const float out = std::exp2(v);
  return out < 1.17549435e-38f ? 0.f : out;  // a NaN passes
}
inline float quick_reciprocal(float v) {
  const float out = 1.f / v;
  return out > -1.17549435e-38f && out < 1.17549435e-38f ? 0.f : out;
}
template <typename T>
inline T load_constant(const T* from) {
  shim::load_any_time(from, sizeof(T));
  return *from;
}
inline void prefetch_l2(const void*) {}
unsigned atomic_inc_release(unsigned* address, unsigned limit);
void fence_acquire();
inline float float_of_bits(std::uint32_t bits) {
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}
inline std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float16 half_of_bits(std::uint16_t bits) { return {bits}; }
template <int kBytes>
inline void copy_async(void* shared, const void* global) {
  shim::copy_later(shared, global, kBytes);
}
template <int kBytes>
inline void copy_async_or_zero(void* shared, const void* global, bool exists) {
  shim::copy_later(shared, exists ? global : nullptr, kBytes);
}
inline void commit_async() { shim::close_copies(); }
template <int kGroups>
inline void wait_async() {
  shim::wait_copies(kGroups);
}
template <int kId, int kThreads>
void meet() {
  static_assert(0 < kId && kId < 16, "0 is __syncthreads's");
  if (static_cast<int>(blockDim.x) != kThreads) shim::fail("a barrier of another number of threads than the block has");
  shim::barrier(kId);
}

template <typename T>
inline std::uint32_t pack_pair(float first, float second) {
  return from_float<T>(first).bits | static_cast<std::uint32_t>(from_float<T>(second).bits) << 16;
}
template <bool kTransposed>
void load_matrices(const void* row, std::uint32_t (&pairs)[4]);
template <typename T>
void multiply_add_fragments(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);
template <typename... Formal, typename... Actual>
cudaError_t launch_with_shared(void (*kernel)(Formal...), dim3 grid, dim3 block, int shared_bytes, cudaStream_t,
                               Actual... args) {
  shim::run(grid, block, static_cast<std::size_t>(shared_bytes), [&] { kernel(args...); });
  return cudaSuccess;
}
template <typename... Formal, typename... Actual>
cudaError_t launch(void (*kernel)(Formal...), dim3 grid, dim3 block, cudaStream_t stream, Actual... args) {
  return launch_with_shared(kernel, grid, block, 0, stream, args...);
}

}  // namespace elastic
