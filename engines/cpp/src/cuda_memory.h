// CUDA's runtime interface with owners and exceptions. Private to the library.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "elastic_runtime/error.h"
#include "elastic_runtime/slicing.h"

namespace elastic::cuda {

inline void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  (void)cudaGetLastError();  // so that the next call does not report it again
  throw BuildError(what, "the GPU to do it", cudaGetErrorString(result));
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
struct DestroyGraph {
  void operator()(cudaGraphExec_t graph) const { (void)cudaGraphExecDestroy(graph); }
};
using Device = std::unique_ptr<void, FreeDevice>;
using Stream = std::unique_ptr<CUstream_st, DestroyStream>;
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

/// The strided copies of slicing.h, from the mapped file to the device, a band at a time: bounds what is
/// resident.
inline void copy_blocks(const std::byte* source, void* target, const std::vector<Block>& blocks,
                        const Touch& fetch, const Touch& release, cudaStream_t stream) {
  constexpr std::uint64_t kBand = std::uint64_t{64} << 20;
  for (const Block& block : blocks) {
    // One block of memory is a copy of one dimension: a tall narrow one of two would be slow and may exceed
    // the pitch.
    const bool flat = block.contiguous();
    const std::uint64_t pitch = flat ? 1 : block.source_pitch, width = flat ? 1 : block.width;
    const std::uint64_t height = flat ? block.width * block.height : block.height;
    const std::uint64_t target_pitch = flat ? 1 : block.target_pitch;
    const std::uint64_t band = std::max<std::uint64_t>(1, kBand / pitch);
    for (std::uint64_t row = 0; row < height; row += band) {
      const std::uint64_t rows = std::min(band, height - row), first = block.source + row * pitch;
      const std::uint64_t bytes = (rows - 1) * pitch + width;
      auto* to = static_cast<std::byte*>(target) + block.target + row * target_pitch;
      fetch(first, bytes);
      check(flat ? cudaMemcpyAsync(to, source + first, rows, cudaMemcpyHostToDevice, stream)
                 : cudaMemcpy2DAsync(to, target_pitch, source + first, pitch, width, rows,
                                     cudaMemcpyHostToDevice, stream),
            "copying weights to the GPU");
      release(first,
              bytes);  // pageable memory was copied to the driver's own buffer before the call returned
    }
  }
}

}  // namespace elastic::cuda
