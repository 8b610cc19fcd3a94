// How a state lies in memory, for copies of it. Private to the library.
#pragma once

#include <cstddef>
#include <cstdint>

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
};

/// The states as what a backend of that kind saves. Throws InputError about those of another.
template <typename Saved>
const Saved& saved_by(const SavedStates& states) {
  if (const auto* found = dynamic_cast<const Saved*>(&states)) return *found;
  throw InputError("snapshot", "states that this backend saved, or one like it", "those of another",
                   "prefill again");
}

}  // namespace elastic
