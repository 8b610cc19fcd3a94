// CUDA's runtime interface with owners and exceptions. Private to the library.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "elastic_runtime/error.h"

namespace elastic::cuda {

/// Throws BuildError; UnavailableError where there is no room: nothing failed, and something else may run.
inline void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  (void)cudaGetLastError();  // so that the next call does not report it again
  if (result == cudaErrorMemoryAllocation)
    throw UnavailableError(what, "the GPU to do it", cudaGetErrorString(result),
                           "close what uses the card, or take a smaller budget or context");
  throw BuildError(what, "the GPU to do it", cudaGetErrorString(result),
                   "see whether nvidia-smi shows the card as sound, or run on the CPU");
}

struct FreeDevice {
  void operator()(void* memory) const { (void)cudaFree(memory); }
};
struct FreeHost {
  void operator()(void* memory) const { (void)cudaFreeHost(memory); }
};
struct DestroyStream {
  void operator()(cudaStream_t stream) const { (void)cudaStreamDestroy(stream); }
};
struct DestroyEvent {
  void operator()(cudaEvent_t event) const { (void)cudaEventDestroy(event); }
};
struct DestroyGraph {
  void operator()(cudaGraphExec_t graph) const { (void)cudaGraphExecDestroy(graph); }
};
using Device = std::unique_ptr<void, FreeDevice>;
using Stream = std::unique_ptr<CUstream_st, DestroyStream>;
using Event = std::unique_ptr<CUevent_st, DestroyEvent>;
using Graph = std::unique_ptr<CUgraphExec_st, DestroyGraph>;
template <typename T>
using Pinned = std::unique_ptr<T[], FreeHost>;

/// Linear device memory; cudaMalloc aligns it to 256 bytes, as bindings want it.
inline Device allocate(std::size_t bytes, const char* what) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes == 0 ? 1 : bytes), what);
  return Device(memory);
}

/// Page-locked host memory.
template <typename T>
Pinned<T> pin(std::size_t count) {
  void* memory = nullptr;
  check(cudaMallocHost(&memory, (count == 0 ? 1 : count) * sizeof(T)), "page-locked memory");
  return Pinned<T>(static_cast<T*>(memory));
}

inline Stream make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a CUDA stream");
  return Stream(stream);
}

inline Event make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "a CUDA event");
  return Event(event);
}

}  // namespace elastic::cuda
