// The host backend: a budget's model.onnx on onnxruntime's CPU, weights straight from the mapped files.
#pragma once

#include <filesystem>
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
  /// Another file of the same interface, such as the float32 twin that elastic_runtime.twin makes in Python.
  std::optional<std::filesystem::path> model;
};

/// Whether this library was built with onnxruntime.
bool has_onnx_backend();

/// Loads the model. Throws InputError: built without onnxruntime, a model in a dtype that its CPU cannot run
/// (with the memory that a float32 twin would take), a bundle and a model that do not belong together.
std::unique_ptr<Backend> make_onnx_backend(const Bundle& bundle, const BudgetEntry& budget,
                                           const OnnxOptions& options = {});

/// Bytes that the float32 twin of a budget takes on the CPU: the weights as they are stored, the largest of
/// them once more in float32, and caches and states in float32.
std::int64_t twin_bytes(const BudgetEntry& budget, std::int64_t max_context, std::int64_t batch);

}  // namespace elastic
