#include "ort/card_provider.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>

#include "ort/no_cuda.h"
#include "ort/onnx_memory.h"

namespace elastic::onnx {
namespace {

constexpr char kCuda[] = "CUDAExecutionProvider";

struct ReleaseCuda {
  void operator()(OrtCUDAProviderOptionsV2* value) const { api().ReleaseCUDAProviderOptions(value); }
};

/// Its words in the reason why the card is not used.
void need(OrtStatus* status) {
  if (!status) return;
  const std::string message = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  fail_without_cuda("a refusal: " + message);
}

}  // namespace

void check_card_provider() {
  char** names = nullptr;
  int count = 0;
  check(api().GetAvailableProviders(&names, &count));
  const bool listed =
      std::any_of(names, names + count, [](const char* name) { return std::strcmp(name, kCuda) == 0; });
  check(api().ReleaseAvailableProviders(names, count));
  if (!listed)
    fail_without_cuda(std::string("onnxruntime ") + OrtGetApiBase()->GetVersionString() + " without one");
}

Owned<OrtMemoryInfo> card_memory_info(int card) {
  OrtMemoryInfo* made = nullptr;
  check(api().CreateMemoryInfo("Cuda", OrtDeviceAllocator, card, OrtMemTypeDefault, &made));
  return Owned<OrtMemoryInfo>(made);
}

void append_cuda(OrtSessionOptions* options, int card) {
  OrtCUDAProviderOptionsV2* made = nullptr;
  need(api().CreateCUDAProviderOptions(&made));
  const std::unique_ptr<OrtCUDAProviderOptionsV2, ReleaseCuda> provider(made);
  const std::string number = std::to_string(card);
  const char* const keys[] = {"device_id", "use_tf32", "arena_extend_strategy"};
  const char* const values[] = {number.c_str(), "0", "kSameAsRequested"};
  need(api().UpdateCUDAProviderOptions(provider.get(), keys, values, std::size(keys)));
  need(api().SessionOptionsAppendExecutionProvider_CUDA_V2(options, provider.get()));
}

}  // namespace elastic::onnx
