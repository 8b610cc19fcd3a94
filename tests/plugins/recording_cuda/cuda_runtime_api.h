// CUDA's runtime as counters.h needs it, in main memory: what was asked, in order, as text. It is as strict as a card's
// where it matters: work of a stream is done when that stream is waited for and not before, and what CUDA's text calls
// unsafe ends a recording unless the thread's mode allows it.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorUnknown = 999,
  cudaErrorStreamCaptureUnsupported = 900
};
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2
};
constexpr unsigned cudaStreamNonBlocking = 1;
using cudaStream_t = const char*;

enum class Records { kNobody, kThisThread, kAnother };  // in the global mode

struct Recording {
  std::string said;
  std::string failing;  // the word of what CUDA refuses
  Records records = Records::kNobody;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  cudaError_t last = cudaSuccess;
  std::map<std::string, std::vector<std::function<void()>>> waiting;  // work, by stream
};
inline Recording& recording() {
  static Recording one;
  return one;
}

// Notes a step. Its result: what it was told to fail with, and the last error with it.
inline cudaError_t step(const std::string& word, const std::string& rest) {
  Recording& all = recording();
  all.said += word + rest + "; ";
  if (all.failing != word) return cudaSuccess;
  return all.last = word == "malloc" ? cudaErrorMemoryAllocation : cudaErrorUnknown;
}
inline bool allowed() {
  Recording& all = recording();
  const bool minds_another = all.mode == cudaStreamCaptureModeGlobal;
  const bool refused = all.mode != cudaStreamCaptureModeRelaxed &&
                       (all.records == Records::kThisThread || (all.records == Records::kAnother && minds_another));
  if (refused) all.said += "the recording is lost; ", all.last = cudaErrorStreamCaptureUnsupported;
  return !refused;
}

inline cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  const char* const names[] = {"global", "thread-local", "relaxed"};
  const cudaError_t error = step("mode", std::string(" ") + names[*mode]);
  if (error == cudaSuccess) std::swap(*mode, recording().mode);
  return error;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (!allowed()) return recording().last;
  const cudaError_t error = step("stream", flags == cudaStreamNonBlocking ? "" : " that waits for the legacy one");
  if (error == cudaSuccess) *stream = "its own";
  return error;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!allowed()) return recording().last;
  const cudaError_t error = step("wait", std::string(" for ") + stream);
  if (error != cudaSuccess) return error;
  for (const auto& work : recording().waiting[stream]) work();
  recording().waiting[stream].clear();
  return error;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) { return step("end", std::string(" of ") + stream); }
inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  if (!allowed()) return recording().last;
  const cudaError_t error = step("malloc", " " + std::to_string(bytes));
  if (error == cudaSuccess) *memory = std::memset(std::malloc(bytes), 0xa5, bytes);
  return error;
}
inline cudaError_t cudaFree(void* memory) {
  if (!memory) return cudaSuccess;
  if (!allowed()) return recording().last;
  return std::free(memory), step("free", "");
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  const cudaError_t error = step("set", " " + std::to_string(bytes) + " to " + std::to_string(value) + " on " + stream);
  if (error == cudaSuccess) recording().waiting[stream].push_back([=] { std::memset(memory, value, bytes); });
  return error;
}
inline cudaError_t cudaGetLastError() {
  const cudaError_t last = recording().last;
  recording().last = cudaSuccess;
  return last;
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : (error ? "another error" : "no error");
}
