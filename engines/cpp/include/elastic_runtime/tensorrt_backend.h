// The device backend: an engine of a bundle on TensorRT for RTX (or TensorRT), weights bound as inputs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "elastic_runtime/bundle.h"
#include "elastic_runtime/session.h"

namespace elastic {

struct TensorRtOptions {
  std::int64_t max_batch = 1;
  /// Folder of plugin libraries that the caller vouches for; see `plugin_source` of plugin_library.h.
  std::optional<std::filesystem::path> plugins;
  /// The caller vouches for the plugin library inside the engine.
  bool trust_engine = false;
  /// Compiled kernels are kept here, so that a second start compiles nothing (TensorRT for RTX), such as at
  /// `default_runtime_cache`; none: not kept.
  std::optional<std::filesystem::path> runtime_cache;
  bool cuda_graph = true;  ///< replay decode steps as a CUDA graph
  /// Hears how many bytes of weights are read next. What it throws ends the loading, and everything is given
  /// back.
  std::function<void(std::size_t)> on_bytes;
  std::function<void(const std::string&)> warn;  ///< hears of what is no error, such as `untested`
};

/// A GPU as `choose` needs it.
struct Device {
  std::string name, compute_capability;  ///< such as `12.0`
  std::int64_t free_bytes = 0;
};

/// The file of an engine's compiled kernels for a card of that name: ELASTIC_CACHE, else XDG_CACHE_HOME or
/// ~/.cache. The Python runtime's own, so that whichever comes first compiles.
std::filesystem::path default_runtime_cache(const Bundle& bundle, const EngineEntry& engine,
                                            const std::string& card);

/// Whether this library was built with TensorRT.
bool has_tensorrt_backend();

/// The current CUDA device; nullopt where there is none, or no backend for it.
std::optional<Device> current_device();

/// Loads an engine. Throws UnavailableError before anything is allocated: built without TensorRT, an engine
/// of another flavour, version or GPU class, a missing plugin library, not enough free memory; InputError: a
/// batch that the engine was not built for. Throws BuildError: the device failed.
std::unique_ptr<Backend> make_tensorrt_backend(const Bundle& bundle, const BudgetEntry& budget,
                                               const EngineEntry& engine,
                                               const TensorRtOptions& options = {});

}  // namespace elastic
