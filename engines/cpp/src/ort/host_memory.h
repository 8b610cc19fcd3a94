// The reckoning of host_bytes without the files of a bundle. Private to the library.
#pragma once

#include <cstdint>
#include <string>

#include "elastic_runtime/manifest.h"
#include "elastic_runtime/weights.h"

namespace elastic {

/// Bytes that the CPU takes for a budget, its weights as stored: `ram_needed(...).stored` of open_onnx.py.
/// @param recipe where its weights come from; null for embedded ones
/// @param precision of the bundle
std::int64_t host_bytes(const BudgetEntry& budget, const WeightRecipe* recipe, const std::string& precision,
                        std::int64_t max_context, std::int64_t batch);

}  // namespace elastic
