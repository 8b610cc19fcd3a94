// The device backend: an engine of a bundle on TensorRT for RTX (or TensorRT), weights bound as inputs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "elastic_runtime/bundle.h"
#include "elastic_runtime/device.h"
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
  /// Hears how many bytes of weights are read next: from any of the threads that read, one call at a time.
  /// What it throws ends the loading, and everything is given back.
  std::function<void(std::size_t)> on_bytes;
  /// Hears of what is no error, such as `untested`, and of TensorRT's warnings and errors; from any thread,
  /// one call at a time.
  std::function<void(const std::string&)> warn;
};

/// The file of an engine's compiled kernels for a card of that name: ELASTIC_CACHE, else XDG_CACHE_HOME or
/// ~/.cache. The Python runtime's own, so that whichever comes first compiles. nullopt: nobody knows a home,
/// and kernels are kept nowhere.
std::optional<std::filesystem::path> default_runtime_cache(const Bundle& bundle, const EngineEntry& engine,
                                                           const std::string& card);

/// Whether this library was built with TensorRT.
bool has_tensorrt_backend();

/// Loads an engine. Throws UnavailableError before anything is allocated: built without TensorRT, no card or
/// one of another class, an engine of another flavour or version, an old driver, a missing plugin library,
/// not enough free memory; InputError: a batch that the engine was not built for. Throws BuildError: the
/// device failed. `open_backend` of opening.h goes on to the next thing that runs.
std::unique_ptr<Backend> make_tensorrt_backend(const Bundle& bundle, const BudgetEntry& budget,
                                               const EngineEntry& engine,
                                               const TensorRtOptions& options = {});

}  // namespace elastic
