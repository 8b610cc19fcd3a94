#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <utility>

#include "fake_sdk.h"

struct CUstream_st {
  fake::Living living;
};
struct CUevent_st {
  fake::Living living;
};
struct CUgraph_st {
  std::function<void()> work;
  fake::Living living;
};
struct CUgraphExec_st {
  std::function<void()> work;
  fake::Living living;
};

namespace fake {

State& state() {
  static State all;
  return all;
}

}  // namespace fake

using fake::state;

namespace {

/// What was asked of the stream before: copies from page-locked memory read it no earlier than now, so that a
/// buffer that is filled again too soon gives wrong bytes.
void run_what_is_underway() {
  for (const auto& work : state().underway) work();
  state().underway.clear();
}

bool is_pinned(const void* memory) {
  const char* at = static_cast<const char*>(memory);
  const auto after = state().pinned.upper_bound(at);
  return after != state().pinned.begin() && at < std::prev(after)->first + std::prev(after)->second;
}

void copy(const void* from, std::function<void()> work) {
  state().underway.push_back(std::move(work));
  if (!is_pinned(from)) run_what_is_underway();
}

/// What a call gives that nothing else stands in the way of.
cudaError_t answer() { return fake::taken() ? cudaSuccess : cudaErrorDeviceUnavailable; }

}  // namespace

cudaError_t cudaDriverGetVersion(int* version) { return *version = state().driver, cudaSuccess; }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const cudaError_t error = answer();
  if (error == cudaSuccess) *event = new CUevent_st;
  return error;
}

cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return answer(); }

cudaError_t cudaEventSynchronize(cudaEvent_t) { return run_what_is_underway(), answer(); }

cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }

cudaError_t cudaGetDevice(int* device) {
  return *device = state().current_card, state().has_device ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorDeviceUnavailable) return "the device is gone";
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an error";
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  if (bytes > std::min(state().free_bytes, state().room)) return cudaErrorMemoryAllocation;
  if (state().fails_at > 0 && --state().fails_at == 0) return cudaErrorDeviceUnavailable;
  if (const cudaError_t error = answer(); error != cudaSuccess) return error;
  ++state().live_allocations;
  *memory = std::malloc(bytes);
  std::memset(*memory, 0xEE, bytes);  // nothing may rely on fresh memory
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) { return --state().live_allocations, std::free(memory), cudaSuccess; }

cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  if (const cudaError_t error = answer(); error != cudaSuccess) return error;
  *memory = std::malloc(bytes);
  state().pinned[static_cast<const char*>(*memory)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  state().pinned.erase(static_cast<const char*>(memory));
  return std::free(memory), cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  run_what_is_underway();
  return std::memset(memory, value, bytes), answer();
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  return copy(from, [=] { std::memcpy(to, from, bytes); }), answer();
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind, cudaStream_t) {
  copy(from, [=] {
    for (std::size_t row = 0; row < height; ++row) {
      std::memcpy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch,
                  width);
    }
  });
  return answer();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (state().room == 0) return cudaErrorMemoryAllocation;
  const cudaError_t error = answer();
  if (error == cudaSuccess) *stream = new CUstream_st;
  return error;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }

cudaError_t cudaStreamSynchronize(cudaStream_t) { return run_what_is_underway(), answer(); }

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return state().capturing = new std::function<void()>, cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = new CUgraph_st{*state().capturing, {}};
  delete state().capturing;
  state().capturing = nullptr;
  return state().can_capture ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  return *made = new CUgraphExec_st{graph->work, {}}, cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  run_what_is_underway();
  return ++state().replayed, graph->work(), cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return delete graph, cudaSuccess; }
