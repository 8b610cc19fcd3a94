// What a budget takes on the CPU, and which fits: the reckoning of open_onnx.py. Built without onnxruntime
// too.
#include <algorithm>

#include "elastic_runtime/error.h"
#include "elastic_runtime/onnx_backend.h"
#include "files.h"
#include "system.h"

namespace elastic {
namespace {

constexpr std::int64_t kArena = std::int64_t{256}
                                << 20;  // bytes: onnxruntime itself, its buffers of one call

std::int64_t weight_bytes(const Bundle& bundle, const BudgetEntry& budget) {
  if (!budget.weights) return times(4, budget.parameters);
  const WeightRecipe recipe = bundle.recipe(budget);
  std::int64_t largest = 0;
  for (const WeightInput& input : recipe.inputs) {
    std::int64_t wide = 4;
    for (const std::int64_t size : input.shape) wide = times(wide, size);
    largest = std::max(largest, wide);
  }
  return plus(recipe.nbytes(), largest);
}

}  // namespace

std::int64_t host_bytes(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                        std::int64_t batch) {
  const std::int64_t row = plus(budget.state_bytes, times(budget.kv_bytes_per_token, max_context));
  return plus(plus(weight_bytes(bundle, budget), times(4, times(batch, row))), kArena);
}

const BudgetEntry& choose_on_host(const Bundle& bundle, std::int64_t max_context, std::int64_t batch) {
  return choose_on_host(bundle, max_context, batch, free_ram());
}

const BudgetEntry& choose_on_host(const Bundle& bundle, std::int64_t max_context, std::int64_t batch,
                                  std::int64_t free) {
  const auto& budgets = bundle.manifest().budgets;  // the largest first
  const auto found = std::find_if(budgets.begin(), budgets.end(), [&](const BudgetEntry& budget) {
    return host_bytes(bundle, budget, max_context, batch) <= free;
  });
  return found == budgets.end() ? budgets.back() : *found;
}

void check_host_memory(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                       std::int64_t batch, std::int64_t free) {
  const std::int64_t need = host_bytes(bundle, budget, max_context, batch);
  if (need <= free) return;
  throw UnavailableError("budget " + repr(budget.name) + " on the CPU",
                         gib(need) + " GiB of free memory (float32 arithmetic, weights as stored)",
                         gib(std::max<std::int64_t>(free, 0)) + " GiB",
                         "take a smaller budget or context, or run its engine on a card");
}

}  // namespace elastic
