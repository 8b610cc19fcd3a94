// How long the calls of an engine are: the rule of elastic_runtime/tensorrt/call_size.py. Private to the
// library.
#pragma once

#include <algorithm>
#include <cstdint>

namespace elastic {

/// T of the next call for `wanted` tokens, at least 1, where `most` fit behind the longest row: one of a few
/// lengths, so that no prompt's odd end has TensorRT for RTX compile kernels for a length of its own. The
/// next larger one, unless it does not fit or more than half of it would be padding that costs time: then the
/// next smaller one, and the rest comes in further calls.
inline std::int64_t engine_call_size(std::int64_t wanted, std::int64_t most, std::int64_t max_tokens) {
  constexpr std::int64_t kWhileReading = 256;  // a shorter call takes as long as reading the weights does
  const std::int64_t sizes[] = {1, 16, 64, 256, 1024, max_tokens};
  const std::int64_t limit = std::min(most, max_tokens);
  std::int64_t smaller = 1, larger = 0;
  for (const std::int64_t size : sizes) {
    if (size > limit) continue;
    if (size <= wanted) smaller = std::max(smaller, size);
    if (size >= wanted && (larger == 0 || size < larger)) larger = size;
  }
  return larger == 0 || larger > std::max(kWhileReading, 2 * wanted) ? smaller : larger;
}

}  // namespace elastic
