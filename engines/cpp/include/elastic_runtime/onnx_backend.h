// The host backend: a budget's model.onnx on onnxruntime's CPU, weights straight from the mapped files.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "elastic_runtime/bundle.h"
#include "elastic_runtime/session.h"

namespace elastic {

struct OnnxOptions {
  std::int64_t max_context = 4096;  ///< caches are allocated for all of it
  std::int64_t max_tokens = 256;    ///< of one call
  std::int64_t max_batch = 1;
  int threads = 0;  ///< 0: onnxruntime decides
  /// Another file of the same interface, such as the float32 twin that elastic_runtime.ort.twin makes in Python.
  std::optional<std::filesystem::path> model;
  /// Hears how many bytes of weights are read next. What it throws ends the loading, and everything is given
  /// back.
  std::function<void(std::size_t)> on_bytes;
};

/// Whether this library was built with onnxruntime.
bool has_onnx_backend();

/// Loads the model. Throws UnavailableError before anything is loaded: built without onnxruntime, not enough
/// free memory; InputError: a model in a dtype that its CPU cannot run (with the memory that a float32 twin
/// would take), a bundle and a model that do not belong together.
std::unique_ptr<Backend> make_onnx_backend(const Bundle& bundle, const BudgetEntry& budget,
                                           const OnnxOptions& options = {});

/// Bytes of main memory that a budget takes on the CPU: its weights as they are stored, the largest of them
/// once more in float32, caches and states in float32 (SSM states are that already) and once more for the
/// next call, and onnxruntime itself. Embedded weights count in float32. The same reckoning as open_onnx.py.
std::int64_t host_bytes(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                        std::int64_t batch = 1);

/// The largest budget that fits the free memory of this machine; the smallest where none does: opening it
/// says how much it would take.
const BudgetEntry& choose_on_host(const Bundle& bundle, std::int64_t max_context, std::int64_t batch = 1);

/// The same for `free` bytes.
const BudgetEntry& choose_on_host(const Bundle& bundle, std::int64_t max_context, std::int64_t batch,
                                  std::int64_t free);

/// Throws UnavailableError when `free` bytes are not enough for a budget; it names one that fits.
void check_host_memory(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                       std::int64_t batch, std::int64_t free);

}  // namespace elastic
