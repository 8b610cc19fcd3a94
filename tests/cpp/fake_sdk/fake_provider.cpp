// A stand-in for onnxruntime's CUDA provider: its CPU computes on the stand-in card's memory, which is host
// memory.
#include "fake_sdk.h"
#include "ort/card_provider.h"
#include "ort/no_cuda.h"
#include "ort/onnx_memory.h"

namespace elastic::onnx {

void check_card_provider() {
  if (!fake::state().has_provider) fail_without_cuda("onnxruntime 1.2.3 without one");
}

Owned<OrtMemoryInfo> card_memory_info(int) {
  OrtMemoryInfo* made = nullptr;
  check(api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &made));
  return Owned<OrtMemoryInfo>(made);
}

void append_cuda(OrtSessionOptions*, int) {
  if (!fake::state().provider_fails.empty()) fail_without_cuda("a refusal: " + fake::state().provider_fails);
}

}  // namespace elastic::onnx
