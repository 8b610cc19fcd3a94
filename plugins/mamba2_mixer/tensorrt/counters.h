// Device memory of a plugin instance: the counters of decode_step, which survive from call to call.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace elastic::mamba2::trt {

// While it lives, CUDA lets this thread allocate and free although something is being recorded. Otherwise that is refused,
// and ends the recording, while this thread records, or another does in the global mode.
class Unrecorded {
 public:
  Unrecorded() : exchanged_(cudaThreadExchangeStreamCaptureMode(&mode_) == cudaSuccess) {}
  ~Unrecorded() {
    if (exchanged_) (void)cudaThreadExchangeStreamCaptureMode(&mode_);
  }
  Unrecorded(const Unrecorded&) = delete;
  Unrecorded& operator=(const Unrecorded&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // once exchanged, the thread's own
  bool exchanged_;
};

// Every decode_step finds zeros and leaves zeros, so they are zeroed once, where they are allocated: in a call that is
// recorded, a graph would do it again at every replay. The only launches that leave something else are those that fault,
// and after one its CUDA context takes no more work.
//
// Earlier, smaller blocks live as long as the newest: a captured CUDA graph may still hold their addresses.
class Counters {
 public:
  Counters() = default;
  ~Counters() {
    const Unrecorded unrecorded;
    for (uint32_t* memory : all_) (void)cudaFree(memory);
  }
  Counters(const Counters&) = delete;
  Counters& operator=(const Counters&) = delete;

  // Makes room for `count` if it can: no error, since who needs it asks again with `reserve`. Where no call waits.
  void prepare(int32_t count) {
    if (count > capacity_) (void)grow(count);
  }

  // Makes room for `count`. Throws std::runtime_error with CUDA's words.
  void reserve(int32_t count) {
    if (count <= capacity_) return;
    if (const cudaError_t error = grow(count))
      throw std::runtime_error(std::string("Mamba2Mixer: memory for counters: ") + cudaGetErrorString(error));
  }

  uint32_t* get() const { return all_.empty() ? nullptr : all_.back(); }

 private:
  // Zeroed on a stream that nobody else has, and waited for: so they are zeros to whatever stream comes next, and there
  // is nothing to record. cudaMemset would use the legacy stream, which ends the recording of a blocking one.
  cudaError_t grow(int32_t count) {
    const Unrecorded unrecorded;
    const std::size_t bytes = sizeof(uint32_t) * static_cast<std::size_t>(count);
    all_.reserve(all_.size() + 1);  // what may throw comes before there is something to give back
    void* fresh = nullptr;
    cudaStream_t stream = nullptr;
    cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (error == cudaSuccess) {
      error = cudaMalloc(&fresh, bytes);
      if (error == cudaSuccess) error = cudaMemsetAsync(fresh, 0, bytes, stream);
      if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
      (void)cudaStreamDestroy(stream);
    }
    if (error != cudaSuccess) {
      (void)cudaFree(fresh);
      (void)cudaGetLastError();  // or whoever asks after a launch of its own would find this one
      return error;
    }
    all_.push_back(static_cast<uint32_t*>(fresh));
    capacity_ = count;
    return error;
  }

  std::vector<uint32_t*> all_;
  int32_t capacity_ = 0;
};

}  // namespace elastic::mamba2::trt
