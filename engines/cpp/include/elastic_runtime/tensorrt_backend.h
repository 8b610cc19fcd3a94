// The device backend: an engine of a bundle on TensorRT for RTX (or TensorRT), weights bound as inputs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "elastic_runtime/bundle.h"
#include "elastic_runtime/session.h"

namespace elastic {

struct TensorRtOptions {
  std::int64_t max_batch = 1;
  /// Folder of plugin libraries; none: the bundle's own folder, then the loader's path.
  std::optional<std::filesystem::path> plugins;
  /// Compiled kernels are kept here, so that a second start compiles nothing (TensorRT for RTX); none: not
  /// kept.
  std::optional<std::filesystem::path> runtime_cache;
  bool cuda_graph = true;  ///< replay decode steps as a CUDA graph
};

/// A GPU as `choose` needs it.
struct Device {
  std::string name, compute_capability;  ///< such as `12.0`
  std::int64_t free_bytes = 0;
};

/// Whether this library was built with TensorRT.
bool has_tensorrt_backend();

/// The current CUDA device; nullopt where there is none, or no backend for it.
std::optional<Device> current_device();

/// Loads an engine. Throws InputError before anything is allocated: built without TensorRT, an engine of
/// another flavour, version or GPU class, a missing plugin library, not enough free memory. Throws
/// BuildError: the device failed.
std::unique_ptr<Backend> make_tensorrt_backend(const Bundle& bundle, const BudgetEntry& budget,
                                               const EngineEntry& engine,
                                               const TensorRtOptions& options = {});

}  // namespace elastic
