// A budget's model.onnx under onnxruntime: on the CPU, weights straight from the mapped files, or on a card
// through its CUDA provider.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "elastic_runtime/bundle.h"
#include "elastic_runtime/device.h"
#include "elastic_runtime/session.h"

namespace elastic {

struct OnnxOptions {
  std::int64_t max_context = 4096;  ///< caches are allocated for all of it
  std::int64_t max_tokens = 256;    ///< of one call
  std::int64_t max_batch = 1;
  std::int64_t threads = 0;  ///< 0: onnxruntime decides
  /// CUDA's current card, and how much of it may be taken: compute there; none: on the CPU.
  std::optional<Device> card;
  /// Another file of the same interface, such as the float32 twin that elastic_runtime.ort.twin makes in
  /// Python.
  std::optional<std::filesystem::path> model;
  /// Hears how many bytes of weights are read next: from any of the threads that read, one call at a time.
  /// What it throws ends the loading, and everything is given back.
  std::function<void(std::size_t)> on_bytes;
};

/// Whether this library was built with onnxruntime.
bool has_onnx_backend();

/// Whether onnxruntime can compute on a card, as far as it shows before anything is loaded. Throws
/// UnavailableError: this library was built without onnxruntime or CUDA, or onnxruntime without its CUDA
/// provider.
void check_onnx_card();

/// Loads the model. Throws UnavailableError before any weight is: built without onnxruntime, not enough free
/// memory, a card that onnxruntime does not compute on; InputError: a model in a dtype that its CPU cannot
/// run (with the memory that a float32 twin would take), a bundle and a model that do not belong together,
/// a size out of its bounds.
std::unique_ptr<Backend> make_onnx_backend(const Bundle& bundle, const BudgetEntry& budget,
                                           const OnnxOptions& options = {});

/// Bytes of main memory that a budget takes on the CPU: its weights as they are stored, the largest of them
/// once more in float32, caches and states in float32 (SSM states are that already) and once more for the
/// next call, and onnxruntime itself. Embedded weights count in float32. The same reckoning as open_onnx.py.
std::int64_t host_bytes(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                        std::int64_t batch = 1);

/// The first of what a name stands for (forms.h) that fits the free memory of this machine; the last where
/// none does: opening it says how much it would take.
const BudgetEntry& choose_on_host(const Bundle& bundle, std::int64_t max_context, std::int64_t batch = 1,
                                  const std::string& name = "auto");

/// The same for `free` bytes.
const BudgetEntry& choose_on_host(const Bundle& bundle, std::int64_t max_context, std::int64_t batch,
                                  std::int64_t free, const std::string& name = "auto");

/// Throws UnavailableError when `free` bytes are not enough for a budget; it names one that fits.
void check_host_memory(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                       std::int64_t batch, std::int64_t free);

/// Bytes of a card that a budget takes under onnxruntime: weights as `host_bytes` counts them, two banks of
/// float32 states with whole caches, a margin for CUDA and its libraries (not measured).
std::int64_t card_bytes(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                        std::int64_t batch = 1);

/// The first of what a name stands for that fits the free memory of a card; the last where none does.
const BudgetEntry& choose_on_card(const Bundle& bundle, std::int64_t max_context, std::int64_t batch,
                                  const Device& card, const std::string& name = "auto");

/// Throws UnavailableError when a card's free memory is not enough for a budget.
void check_card_memory(const Bundle& bundle, const BudgetEntry& budget, std::int64_t max_context,
                       std::int64_t batch, const Device& card);

}  // namespace elastic
