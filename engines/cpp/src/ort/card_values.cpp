#include <memory>
#include <string>

#include "driver/cuda_memory.h"
#include "ort/card_provider.h"
#include "ort/no_cuda.h"
#include "ort/onnx_api.h"
#include "ort/onnx_memory.h"

namespace elastic::onnx {
namespace {

/// Memory of CUDA's runtime, whose context onnxruntime's provider uses too.
class CardMemory : public Memory {
 public:
  explicit CardMemory(int card) : card_(card), info_(card_memory_info(card)), stream_(cuda::make_stream()) {}

  void add_provider(OrtSessionOptions* options) const override { append_cuda(options, card_); }

  const OrtMemoryInfo* info() const override { return info_.get(); }

  bool is_host() const override { return false; }

  Bytes allocate(std::size_t bytes) override {
    void* memory = nullptr;
    const cudaError_t result = cudaMalloc(&memory, bytes == 0 ? 1 : bytes);
    if (result == cudaErrorMemoryAllocation) throw no_room(bytes);
    cuda::check(result, "memory of the card for onnxruntime");
    return Bytes(memory, cuda::FreeDevice());
  }

  void zero(void* memory, std::size_t bytes) override {
    if (bytes == 0) return;
    cuda::check(cudaMemsetAsync(memory, 0, bytes, stream_.get()), kZeroing);
    cuda::check(cudaStreamSynchronize(stream_.get()), kZeroing);
  }

  void copy(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, Rows rows) override {
    if (rows.height == 0 || rows.width == 0) return;
    const bool flat = rows.height == 1 || (to_pitch == rows.width && from_pitch == rows.width);
    cuda::check(flat ? cudaMemcpyAsync(to, from, rows.width * rows.height, cudaMemcpyDefault, stream_.get())
                     : cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, rows.width, rows.height,
                                         cudaMemcpyDefault, stream_.get()),
                kCopying);
    cuda::check(cudaStreamSynchronize(stream_.get()), kCopying);
  }

 private:
  /// Others took what was free when it was reckoned: the CPU may take the card's place.
  UnavailableError no_room(std::size_t bytes) const {
    (void)cudaGetLastError();  // so that the next call does not report it again
    return {"card " + std::to_string(card_), "room for " + std::to_string(bytes) + " bytes more",
            cudaGetErrorString(cudaErrorMemoryAllocation),
            "close what uses the card, or take a smaller budget or context, or --device cpu"};
  }

  static constexpr char kZeroing[] = "zeroing states on the card", kCopying[] = "copying to or from the card";

  int card_;
  Owned<OrtMemoryInfo> info_;
  cuda::Stream stream_;
};

}  // namespace

std::unique_ptr<Memory> make_card_memory() {
  check_card_provider();
  try {
    int card = 0;
    cuda::check(cudaGetDevice(&card), "CUDA's current card");
    return std::make_unique<CardMemory>(card);  // whose stream starts CUDA there
  } catch (const BuildError& error) {
    fail_without_cuda("one whose CUDA libraries, driver or card do not answer: " + error.found);
  }
}

}  // namespace elastic::onnx
