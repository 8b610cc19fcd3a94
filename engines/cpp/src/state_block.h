// How a state lies in memory, for copies of it. Private to the library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "elastic_runtime/error.h"
#include "elastic_runtime/session.h"

namespace elastic {

/// `height` times `whole` bytes, of which a copy has the first `row` * (rows in use); of a state without rows
/// all.
struct StateBlock {
  std::size_t height = 1, whole = 0, row = 0;

  std::size_t kept(std::int64_t rows) const {
    return row == 0 ? whole : row * static_cast<std::size_t>(rows);
  }

  bool operator==(const StateBlock& other) const {
    return height == other.height && whole == other.whole && row == other.row;
  }
};

/// All states of all sequences under way. Copies have their backend's as `layout`.
using StateLayout = std::vector<StateBlock>;

/// The states as what a backend of that kind saves, where they lie as its own do. Throws InputError about
/// others.
template <typename Saved>
const Saved& saved_by(const SavedStates& states, const StateLayout& layout) {
  const auto* found = dynamic_cast<const Saved*>(&states);
  if (found && found->layout == layout) return *found;
  throw InputError("snapshot", "states that this backend saved, or one like it",
                   found ? "states of another shape or dtype" : "those of another", "prefill again");
}

}  // namespace elastic
