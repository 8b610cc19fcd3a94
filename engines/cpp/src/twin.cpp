#include <algorithm>

#include "elastic_runtime/onnx_backend.h"
#include "files.h"

namespace elastic {

std::int64_t twin_bytes(const BudgetEntry& budget, std::int64_t max_context, std::int64_t batch) {
  const Widths& widths = budget.widths;
  std::int64_t widest = widths.vocab_size;  // rows of the largest matrix over hidden_size columns
  for (const std::int64_t size : widths.ffn_sizes) widest = std::max(widest, size);
  const std::int64_t largest = times(4, times(widest, widths.hidden_size));
  const std::int64_t caches = times(times(batch, max_context), budget.kv_bytes_per_token);
  const std::int64_t states = plus(times(batch, budget.state_bytes), caches);
  return plus(plus(budget.weight_bytes, largest),
              times(4, states));  // float32, and once more for the next call
}

}  // namespace elastic
