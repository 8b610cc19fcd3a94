// What a budget takes under onnxruntime, and which fits: the reckoning of open_onnx.py. Built without
// onnxruntime too.
#include "ort/host_memory.h"

#include <algorithm>
#include <optional>

#include "driver/system.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/onnx_backend.h"
#include "files.h"

namespace elastic {
namespace {

constexpr std::int64_t kArena = std::int64_t{256}
                                << 20;  // bytes: onnxruntime itself, its buffers of one call
constexpr std::int64_t kCardMargin = std::int64_t{3}
                                     << 29;  // bytes: CUDA's context and libraries, the buffers of one call

std::int64_t weight_bytes(const BudgetEntry& budget, const WeightRecipe* recipe) {
  if (!recipe) return times(4, budget.parameters);
  std::int64_t largest = 0;
  for (const WeightInput& input : recipe->inputs) {
    std::int64_t wide = 4;
    for (const std::int64_t size : input.shape()) wide = times(wide, size);
    largest = std::max(largest, wide);
  }
  return plus(recipe->nbytes(), largest);
}

/// A sequence's states in float32: SSM states are that already, the others double where they are narrow.
std::int64_t float32_states(const BudgetEntry& budget, const std::string& precision, std::int64_t context) {
  const Widths& widths = budget.widths;
  std::int64_t heads = 0;
  for (const std::int64_t count : widths.mamba_heads) heads = plus(heads, count);
  const std::int64_t ssm = times(times(times(4, heads), widths.mamba_head_dim), widths.ssm_state);
  const std::int64_t others = std::max<std::int64_t>(0, budget.state_bytes - ssm);
  const std::int64_t row = plus(others, times(budget.kv_bytes_per_token, context));
  return plus(ssm, times(precision == "fp32" ? 1 : 2, row));
}

std::optional<WeightRecipe> recipe_of(const Bundle& bundle, const BudgetEntry& budget) {
  return budget.weights ? std::optional(bundle.recipe(budget)) : std::nullopt;
}

/// The first of them of which `need` says no more than `free`; the last where there is none.
template <typename Need>
const BudgetEntry& first_within(const std::vector<const BudgetEntry*>& budgets, std::int64_t free,
                                const Need& need) {
  const auto found = std::find_if(budgets.begin(), budgets.end(),
                                  [&](const BudgetEntry* budget) { return need(*budget) <= free; });
  return found == budgets.end() ? *budgets.back() : **found;
}

}  // namespace

std::int64_t host_bytes(const BudgetEntry& budget, const WeightRecipe* recipe, const std::string& precision,
                        std::int64_t max_context, std::int64_t batch) {
  const std::int64_t states = times(times(2, batch), float32_states(budget, precision, max_context));
  return plus(plus(weight_bytes(budget, recipe), states), kArena);
}

std::int64_t host_bytes(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                        std::int64_t batch) {
  const std::optional<WeightRecipe> recipe = recipe_of(bundle, budget);
  return host_bytes(budget, recipe ? &*recipe : nullptr, bundle.manifest().precision, max_context, batch);
}

const BudgetEntry& choose_on_host(const Bundle& bundle, std::int64_t max_context, std::int64_t batch,
                                  const std::string& name) {
  return choose_on_host(bundle, max_context, batch, free_ram(), name);
}

const BudgetEntry& choose_on_host(const Bundle& bundle, std::int64_t max_context, std::int64_t batch,
                                  std::int64_t free, const std::string& name) {
  return first_within(bundle.forms(name), free, [&](const BudgetEntry& budget) {
    return host_bytes(bundle, budget, max_context, batch);
  });
}

void check_host_memory(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                       std::int64_t batch, std::int64_t free) {
  const std::int64_t need = host_bytes(bundle, budget, max_context, batch);
  if (need <= free) return;
  const auto& budgets = bundle.manifest().budgets;
  const auto other = std::find_if(budgets.begin(), budgets.end(), [&](const BudgetEntry& each) {
    return host_bytes(bundle, each, max_context, batch) <= free;
  });
  const std::string smaller = other == budgets.end()
                                  ? "take a smaller budget or context"
                                  : "take the budget " + other->name + ", which fits, a smaller context";
  throw UnavailableError("budget " + in_quotes(budget.name) + " on the CPU",
                         gib(need) + " GiB of free memory (float32 arithmetic, weights as stored)",
                         gib(std::max<std::int64_t>(free, 0)) + " GiB",
                         smaller + ", or run its engine on a card");
}

std::int64_t card_bytes(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                        std::int64_t batch) {
  const std::optional<WeightRecipe> recipe = recipe_of(bundle, budget);
  const std::int64_t states =
      times(times(2, batch), float32_states(budget, bundle.manifest().precision, max_context));
  return plus(plus(weight_bytes(budget, recipe ? &*recipe : nullptr), states), kCardMargin);
}

const BudgetEntry& choose_on_card(const Bundle& bundle, std::int64_t max_context, std::int64_t batch,
                                  const Device& card, const std::string& name) {
  return first_within(bundle.forms(name), card.free_bytes, [&](const BudgetEntry& budget) {
    return card_bytes(bundle, budget, max_context, batch);
  });
}

void check_card_memory(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                       std::int64_t batch, const Device& card) {
  const std::int64_t need = card_bytes(bundle, budget, max_context, batch);
  if (need <= card.free_bytes) return;
  throw UnavailableError("budget " + in_quotes(budget.name) + " under onnxruntime on " + card.name,
                         gib(need) + " GiB of free memory for its float32 twin",
                         gib(std::max<std::int64_t>(card.free_bytes, 0)) + " GiB",
                         "take a smaller budget or context, or run on the CPU (--device cpu)");
}

}  // namespace elastic
