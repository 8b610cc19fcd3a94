// An engine, deserialised, with its contexts: one per profile and per side of the double-buffered states.
// Private to the library.
#pragma once

#include <NvInferRuntime.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "driver/cuda_memory.h"
#include "elastic_runtime/bundle.h"
#include "elastic_runtime/plugin_library.h"
#include "elastic_runtime/tensorrt_backend.h"

namespace elastic::trt {

/// Passes TensorRT's warnings and errors on, and keeps the last error for ours. TensorRT for RTX logs from
/// the threads that compile kernels, while this library's own warnings come from the caller's: `warn` takes
/// one at a time (`one_at_a_time`).
class Logger : public nvinfer1::ILogger {
 public:
  explicit Logger(std::function<void(const std::string&)> warn) : warn_(std::move(warn)) {}
  void log(Severity severity, const char* message) noexcept override;
  std::string last() const;

 private:
  std::function<void(const std::string&)> warn_;
  mutable std::mutex mutex_;  // of what follows
  std::string last_;
};

/// Whether this engine can run here now: card, flavour, version, driver, plugins, free memory; where its
/// plugins come from. Throws as `check_runs`, and InputError about a batch that the engine was not built for.
PluginSource check_engine(const BudgetEntry& budget, const EngineEntry& engine,
                          const TensorRtOptions& options);

/// `warn`, which is then called by one thread at a time, whichever copy of the result is called.
std::function<void(const std::string&)> one_at_a_time(std::function<void(const std::string&)> warn);

class Engine {
 public:
  Engine(const Bundle& bundle, const EngineEntry& entry, const PluginSource& plugins,
         const TensorRtOptions& options);
  ~Engine();  ///< writes the runtime cache

  nvinfer1::ICudaEngine& engine() const { return *engine_; }
  nvinfer1::IExecutionContext& prefill() const { return *prefill_; }

  /// The decode context that reads the states of side 0 or 1: its addresses never change, so its graph stays
  /// valid.
  nvinfer1::IExecutionContext& decode(int side) const { return *decode_[side]; }

  /// Whether TensorRT itself replays decode steps as a CUDA graph; if not, the caller captures one.
  bool replays_itself() const { return replays_itself_; }

  /// Whether a run can be recorded as a CUDA graph, as far as TensorRT says; shapes and addresses are set.
  bool recordable(nvinfer1::IExecutionContext& context, cudaStream_t stream) const;

  /// Bytes of activation memory, shared by all contexts: they never run at the same time.
  std::int64_t activation() const { return activation_; }

  /// Enqueue on the stream. Throws BuildError with TensorRT's words.
  void enqueue(nvinfer1::IExecutionContext& context, cudaStream_t stream) const;

  /// Whether weights.json has none but the engine's weights, and each in the shape and dtype that the engine
  /// takes: it reads as much as it was built for, whatever lies behind it on the card, and two bytes are two
  /// bytes, whatever they mean. Throws InputError.
  void check_weights(const WeightRecipe& recipe) const;

  [[noreturn]] void fail(const std::string& what,
                         const std::string& todo = "report it with what TensorRT says above") const;

 private:
  void check_valid(const void* data, std::int64_t size) const;
  void check_tensors(const EngineEntry& entry) const;
  void check_logits(const OutputPort& port) const;
  [[noreturn]] void refuse(const OutputPort& port, const std::string& found) const;
  void read(const std::string& bytes, const PluginSource& plugins);
  void load_plugins(const PluginSource& plugins);
  std::unique_ptr<nvinfer1::IExecutionContext> make_context(int profile, bool replay, cudaStream_t stream);
  std::unique_ptr<nvinfer1::IRuntimeConfig> make_config(bool replay);
  void read_cache();
  void warn(const std::string& text) const;
  void write_cache() const;

  // Destroyed from the last to the first: contexts before the engine, the engine before the runtime.
  std::function<void(const std::string&)> warn_;
  mutable Logger logger_;
  std::string file_;
  std::optional<std::filesystem::path> cache_file_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
#ifdef ELASTIC_HAS_RUNTIME_CACHE
  std::unique_ptr<nvinfer1::IRuntimeCache> cache_;
#endif
  cuda::Device activation_memory_;
  std::int64_t activation_ = 0;
  bool replays_itself_ = false;
  std::unique_ptr<nvinfer1::IExecutionContext> prefill_, decode_[2];
};

}  // namespace elastic::trt
