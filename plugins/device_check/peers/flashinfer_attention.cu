// FlashInfer's attention over a cache, BF16, head size 128, as a C function: its own tile sizes and splits, which it
// chooses on the host from lengths that the host knows.
#include <flashinfer/attention/default_prefill_params.cuh>
#include <flashinfer/attention/prefill.cuh>
#include <flashinfer/attention/variants.cuh>

#include <cstdio>
#include <exception>

namespace {
using Element = __nv_bfloat16;
using Params = flashinfer::SinglePrefillParams<Element, Element, Element>;
using Variant = flashinfer::DefaultAttention<false, false, false, false>;
constexpr int kHeadSize = 128;
}  // namespace

// q and output [tokens, heads, 128]; keys and values [kv_heads, capacity, 128], of which `rows` are filled and the last
// `tokens` belong to q, bottom-right causal. scratch: for FlashInfer's splits. 0, or CUDA's error; -1 and words.
extern "C" __attribute__((visibility("default"))) int peer_flashinfer_attention(
    void* q, void* keys, void* values, void* output, void* scratch, int tokens, int rows, int capacity, int heads,
    int kv_heads, float scale, cudaStream_t stream) {
  Params p(static_cast<Element*>(q), static_cast<Element*>(keys), static_cast<Element*>(values), nullptr,
           static_cast<Element*>(output), nullptr, nullptr, heads, kv_heads, tokens, rows, heads * kHeadSize, kHeadSize,
           kHeadSize, static_cast<uint32_t>(capacity) * kHeadSize, kHeadSize, -1, 0.f, scale, 1.f, 1e4f);
  try {
    return flashinfer::SinglePrefillWithKVCacheDispatched<kHeadSize, kHeadSize, flashinfer::PosEncodingMode::kNone, false,
                                                          flashinfer::MaskMode::kCausal, Variant>(
        p, static_cast<Element*>(scratch), stream);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "flashinfer: %s\n", error.what());
    return -1;
  }
}
