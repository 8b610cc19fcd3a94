#include "elastic_runtime/choose.h"

#include <algorithm>
#include <tuple>

#include "elastic_runtime/error.h"
#include "elastic_runtime/json.h"

namespace elastic {
namespace {

bool serves(const EngineEntry& engine, const std::optional<std::string>& capability) {
  const auto& known = engine.compute_capabilities;
  return !capability || std::find(known.begin(), known.end(), *capability) != known.end();
}

bool is_better(const EngineEntry& a, const EngineEntry& b) {
  return std::tie(a.max_context, a.activation, a.target) < std::tie(b.max_context, b.activation, b.target);
}

bool is_smaller(const EngineEntry& a, const EngineEntry& b) {
  return std::tie(a.max_context, a.max_batch) < std::tie(b.max_context, b.max_batch);
}

Reckoning reckon(const BudgetEntry& budget, const Request& request) {
  const EngineEntry *best = nullptr, *most = nullptr;
  for (const EngineEntry& engine : budget.engines) {
    if (!serves(engine, request.compute_capability)) continue;
    if (!most || is_smaller(*most, engine)) most = &engine;
    const bool able = engine.max_context >= request.context && engine.max_batch >= request.batch;
    if (able && (!best || is_better(engine, *best))) best = &engine;
  }
  if (!most) {
    const auto& card = request.compute_capability;
    return {&budget, nullptr, {}, "no engine" + (card ? " for compute capability " + *card : std::string())};
  }
  if (!best) {
    return {&budget,
            nullptr,
            {},
            "no engine for this: the largest has " + std::to_string(most->max_context) + " tokens x " +
                std::to_string(most->max_batch)};
  }
  const VramNeed need = vram_needed(budget.size(*best), best->max_context, request.batch);
  const std::int64_t missing = need.total - request.vram;
  return {&budget, best, need, missing > 0 ? "does not fit, " + gib(missing) + " GiB short" : ""};
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
  std::string text =
      gib(vram) + " GiB, " + std::to_string(context) + " tokens x " + std::to_string(batch) + ":";
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
  check_positive("context", request.context);
  check_positive("batch", request.batch);
  Choice choice{request.vram, request.context, request.batch, {}};
  for (const BudgetEntry& budget : budgets) choice.reckonings.push_back(reckon(budget, request));
  std::stable_sort(choice.reckonings.begin(), choice.reckonings.end(),
                   [](const Reckoning& a, const Reckoning& b) {
                     if (a.budget->parameters != b.budget->parameters)
                       return a.budget->parameters > b.budget->parameters;
                     return a.budget->name < b.budget->name;
                   });
  return choice;
}

std::string untested(const EngineEntry& engine) {
  if (engine.status.state == "verified") return {};
  return printable(engine.file) +
         " was built and has not been run on a card yet: `elastic-run BUNDLE --verify` does so";
}

}  // namespace elastic
