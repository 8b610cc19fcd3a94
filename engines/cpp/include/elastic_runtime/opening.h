// Opening a bundle where it lands: its engine on the card, else the next thing that runs. The same order and
// the same reasons as elastic_runtime/opening/.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "elastic_runtime/bundle.h"
#include "elastic_runtime/device.h"
#include "elastic_runtime/onnx_backend.h"
#include "elastic_runtime/session.h"
#include "elastic_runtime/tensorrt_backend.h"

namespace elastic {

/// Where to run. `kAuto`: an engine on the card, where none runs onnxruntime on it, then the CPU, with one
/// warning that names the reason. What is asked for by name is taken or refused.
enum class RunOn { kAuto, kCpu, kGpu };

struct OpenRequest {
  std::string budget = "auto";  ///< a name, one form of it (forms.h), or the largest that fits where it runs
  RunOn place = RunOn::kAuto;
  std::optional<std::int64_t> vram;  ///< bytes of the card's memory that may be taken; none: all that is free
  std::optional<std::int64_t>
      context;  ///< tokens that must be possible; none: as many as the card's memory allows
  std::int64_t batch = 1;
  /// Of an engine; `max_batch` and `warn` are those of this request, and kernels are kept at
  /// `default_runtime_cache` where no file is named.
  TensorRtOptions card;
  /// Of onnxruntime; `max_context` where `context` is none, `max_batch` is that of this request, and so
  /// is `card`.
  OnnxOptions host;
};

/// What runs: the budget and its engine; without one onnxruntime, on the card or else the CPU. Both point
/// into the bundle.
struct Placement {
  const BudgetEntry* budget = nullptr;
  const EngineEntry* engine = nullptr;
  std::optional<Device> device;  ///< the card that computes; none: the CPU does
};

struct Opened {
  Placement placement;
  std::unique_ptr<Backend> backend;
};

/// Hears of warnings.
using Say = std::function<void(const std::string&)>;

/// What `open_backend` takes first; nothing is loaded.
///
/// Tried in this order: of the budgets' engines for this card the one that `choose` takes, of those that can
/// run here: a native one where a plugin library is missing; then onnxruntime on the card, where its CUDA
/// provider is, the model (or its twin) is of float32 and fits; then the CPU, where the budget fits into free
/// memory.
///
/// Throws InputError: no such budget, a size out of its bounds, a folder of plugin libraries that holds none;
/// UnavailableError: nothing fits, with a budget that would, or a place that was asked for does not run, with
/// its reason.
Placement place_of(const Bundle& bundle, const OpenRequest& request, const Say& say = {});

/// Loads it; where only loading shows that it does not run, the next best thing: after an engine, as if that
/// were not there; after onnxruntime on a card that has filled up meanwhile, the CPU. What finds no room may
/// be weights or the states of `batch` rows: both are on the card when this returns. Throws as `place_of`,
/// `make_tensorrt_backend` and `make_onnx_backend`.
Opened open_backend(const Bundle& bundle, const OpenRequest& request = {}, const Say& say = {});

}  // namespace elastic
