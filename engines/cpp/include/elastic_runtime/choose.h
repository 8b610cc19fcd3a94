// Which budget of a bundle fits a card: the largest one, reckoned from the manifest's bytes. Same as
// choose.py.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "elastic_runtime/manifest.h"

namespace elastic {

/// One budget: the engine that would serve the request, what it needs, and why it was not chosen if it was
/// not.
struct Reckoning {
  const BudgetEntry* budget = nullptr;
  const EngineEntry* engine = nullptr;  ///< null where no engine can serve
  std::optional<VramNeed> need;
  std::string refusal;

  bool fits() const { return refusal.empty(); }
};

/// The reckoning of every budget; the first that fits is chosen, in the order of `by_size`: the larger budget
/// in eight bits rather than a smaller one, and the weights as they were trained where both fit. Points into
/// the manifest.
struct Choice {
  std::int64_t vram = 0, context = 0, batch = 1;
  std::vector<Reckoning> reckonings;
  bool largest = false;  ///< the most context that the memory allows was asked for

  /// The largest budget that fits, or null.
  const Reckoning* chosen() const;

  /// A head line, then one line a budget: its reckoning and the verdict.
  std::string explain() const;
};

/// What is asked of `choose`.
struct Request {
  std::int64_t vram = 0;                ///< bytes of GPU memory that are free
  std::optional<std::int64_t> context;  ///< tokens that must be possible; none: as many as the memory allows
  std::int64_t batch = 1;
  std::optional<std::string> compute_capability;  ///< such as `12.0`; none leaves the card open
};

/// Of the engines for enough context and batch that fit the memory one serves: with a context asked for one
/// with the smallest, since caches are allocated for all of it; without, one with the largest. Then a plugin
/// engine comes before a native one; then decide the least activation memory and the target's name. Throws
/// InputError: vram, context or batch below 1.
Choice choose(const std::vector<BudgetEntry>& budgets, const Request& request);

/// A warning about an engine that no card has run yet; empty where one has.
std::string untested(const EngineEntry& engine);

}  // namespace elastic
