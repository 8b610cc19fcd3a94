#include "elastic_runtime/choose.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "elastic_runtime/error.h"

namespace elastic {
namespace {

bool serves(const EngineEntry& engine, const std::optional<std::string>& capability) {
  const auto& known = engine.compute_capabilities;
  return !capability || std::find(known.begin(), known.end(), *capability) != known.end();
}

bool is_better(const EngineEntry& a, const EngineEntry& b) {
  const bool a_native = a.ops == "native", b_native = b.ops == "native";
  return std::tie(a.max_context, a_native, a.activation, a.target) <
         std::tie(b.max_context, b_native, b.activation, b.target);
}

bool is_smaller(const EngineEntry& a, const EngineEntry& b) {
  return std::tie(a.max_context, a.max_batch) < std::tie(b.max_context, b.max_batch);
}

/// The engine that serves, and its need; where none fits, the one that needs the least.
std::pair<const EngineEntry*, VramNeed> serving(const BudgetEntry& budget,
                                                std::vector<const EngineEntry*> able,
                                                const Request& request) {
  std::sort(able.begin(), able.end(), [](auto* a, auto* b) { return is_better(*a, *b); });
  std::pair<const EngineEntry*, VramNeed> best{nullptr, {}};
  for (const EngineEntry* engine : able) {
    const VramNeed own = vram_needed(budget.size(*engine), engine->max_context, request.batch);
    const bool fits = own.total <= request.vram;
    const bool best_fits = best.first && best.second.total <= request.vram;
    const bool takes_over = best_fits
                            ? fits && !request.context && engine->max_context > best.first->max_context
                            : fits || !best.first || own.total < best.second.total;
    if (takes_over) best = {engine, own};
  }
  return best;
}

Reckoning reckon(const BudgetEntry& budget, const Request& request) {
  const std::int64_t least = request.context.value_or(1);
  const EngineEntry* most = nullptr;
  std::vector<const EngineEntry*> able;
  for (const EngineEntry& engine : budget.engines) {
    if (!serves(engine, request.compute_capability)) continue;
    if (!most || is_smaller(*most, engine)) most = &engine;
    if (engine.max_context >= least && engine.max_batch >= request.batch) able.push_back(&engine);
  }
  if (!most) {
    const auto& card = request.compute_capability;
    return {&budget, nullptr, {}, "no engine" + (card ? " for compute capability " + *card : std::string())};
  }
  if (able.empty()) {
    return {&budget,
            nullptr,
            {},
            "no engine for this: the largest has " + std::to_string(most->max_context) + " tokens x " +
                std::to_string(most->max_batch)};
  }
  const auto [engine, need] = serving(budget, std::move(able), request);
  const std::int64_t missing = need.total - request.vram;
  return {&budget, engine, need, missing > 0 ? "does not fit, " + gib(missing) + " GiB short" : ""};
}

void check_positive(const char* subject, std::int64_t value) {
  if (value < 1) throw InputError(subject, "at least 1", std::to_string(value));
}

}  // namespace

const Reckoning* Choice::chosen() const {
  const auto found =
      std::find_if(reckonings.begin(), reckonings.end(), [](const Reckoning& r) { return r.fits(); });
  return found == reckonings.end() ? nullptr : &*found;
}

std::string Choice::explain() const {
  std::string text = gib(vram) + " GiB, " + std::to_string(context) + " tokens" +
                     (largest ? " or more" : "") + " x " + std::to_string(batch) + ":";
  for (const Reckoning& reckoning : reckonings) {
    const std::string verdict = !reckoning.fits()        ? reckoning.refusal
                                : &reckoning == chosen() ? "chosen"
                                                         : "fits";
    text += "\n  " + printable(reckoning.budget->name) + ": " +
            (reckoning.need ? reckoning.need->text() + ": " : "") + verdict;
  }
  return text;
}

Choice choose(const std::vector<BudgetEntry>& budgets, const Request& request) {
  check_positive("vram", request.vram);
  check_positive("context", request.context.value_or(1));
  check_positive("batch", request.batch);
  Choice choice{request.vram, request.context.value_or(1), request.batch, {}, !request.context};
  for (const BudgetEntry& budget : budgets) choice.reckonings.push_back(reckon(budget, request));
  std::stable_sort(choice.reckonings.begin(), choice.reckonings.end(),
                   [](const Reckoning& a, const Reckoning& b) { return by_size(*a.budget, *b.budget); });
  return choice;
}

std::string untested(const EngineEntry& engine) {
  if (engine.status.state == "verified") return {};
  return printable(engine.file) +
         " was built, and its manifest names no card that has run it: `elastic-run BUNDLE --verify "
         "--require-engine` tries it on this one, and leaves the manifest as it is";
}

}  // namespace elastic
