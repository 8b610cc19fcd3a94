// Device memory of a plugin instance: the counters of decode_step, which survive from call to call.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace elastic::mamba2::trt {

// Every decode_step finds zeros and leaves zeros. They are zeroed on the stream of the first call of each new shape,
// before its kernel: cudaMemset would run on the legacy stream, with which a non-blocking one has no order, and a
// counter that begins elsewhere stays wrong for ever. So whatever an abnormal end left ends with the next new shape.
//
// Earlier, smaller blocks live as long as the newest: a captured CUDA graph may still hold their addresses.
class Counters {
 public:
  Counters() = default;
  ~Counters() {
    for (uint32_t* memory : all_) (void)cudaFree(memory);
  }
  Counters(const Counters&) = delete;
  Counters& operator=(const Counters&) = delete;

  // Makes room for `count` if it can: no error, since who needs it asks again with `reserve`. Where nothing is recorded
  // yet, so that an allocation, which ends a capture, is not due later.
  void prepare(int32_t count) noexcept {
    if (count > capacity_) (void)grow(count);
    (void)cudaGetLastError();
  }

  // Makes room for `count`, which the next `zero` sets. Throws std::runtime_error with CUDA's words.
  void reserve(int32_t count) {
    if (count > capacity_) check(grow(count), "memory for counters");
    stale_ = true;
  }

  // Zeroes them on the stream unless they were zeroed since `reserve`. A capture records that like any other work, and
  // may never be launched: the next call zeroes them too.
  void zero(cudaStream_t stream) {
    if (!stale_ || capacity_ == 0) return;
    auto capture = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &capture), "state of the stream");
    check(cudaMemsetAsync(get(), 0, sizeof(uint32_t) * static_cast<std::size_t>(capacity_), stream),
          "zeroing of counters");
    stale_ = capture != cudaStreamCaptureStatusNone;
  }

  uint32_t* get() const { return all_.empty() ? nullptr : all_.back(); }

 private:
  cudaError_t grow(int32_t count) {
    void* fresh = nullptr;
    const cudaError_t error = cudaMalloc(&fresh, sizeof(uint32_t) * static_cast<std::size_t>(count));
    if (error != cudaSuccess) return error;
    all_.push_back(static_cast<uint32_t*>(fresh));
    capacity_ = count;
    stale_ = true;
    return error;
  }

  static void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess)
      throw std::runtime_error(std::string("Mamba2Mixer: ") + what + ": " + cudaGetErrorString(error));
  }

  std::vector<uint32_t*> all_;
  int32_t capacity_ = 0;
  bool stale_ = true;
};

}  // namespace elastic::mamba2::trt
