// CUDA's runtime as counters.h needs it, in main memory: what was asked, in order, as text.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <string>

enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
using cudaStream_t = const char*;

struct Recording {
  std::string said;
  bool has_memory = true;
  bool captures = false;
};
inline Recording& recording() {
  static Recording one;
  return one;
}

inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  recording().said += "malloc " + std::to_string(bytes) + "; ";
  if (!recording().has_memory) return cudaErrorMemoryAllocation;
  *memory = std::malloc(bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) { return std::free(memory), recording().said += "free; ", cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void*, int value, std::size_t bytes, cudaStream_t stream) {
  recording().said += "set " + std::to_string(bytes) + " to " + std::to_string(value) + " on " + stream + "; ";
  return cudaSuccess;
}
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone = 0, cudaStreamCaptureStatusActive = 1 };
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = recording().captures ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) { return error ? "out of memory" : "no error"; }
