#include "tensorrt_engine.h"

#include <algorithm>
#include <filesystem>

#include "elastic_runtime/error.h"
#include "elastic_runtime/mapped_file.h"
#include "elastic_runtime/plugin_library.h"
#include "files.h"

namespace elastic {

bool has_tensorrt_backend() { return true; }

std::optional<Device> current_device() {
  int index = 0;
  cudaDeviceProp properties{};
  std::size_t free = 0, total = 0;
  if (cudaGetDevice(&index) != cudaSuccess || cudaGetDeviceProperties(&properties, index) != cudaSuccess ||
      cudaMemGetInfo(&free, &total) != cudaSuccess) {
    (void)cudaGetLastError();  // no driver, no card: that is an answer
    return std::nullopt;
  }
  return Device{properties.name, std::to_string(properties.major) + "." + std::to_string(properties.minor),
                static_cast<std::int64_t>(free)};
}

}  // namespace elastic

namespace elastic::trt {
namespace {

std::string library_version() {
  return std::to_string(getInferLibMajorVersion()) + "." + std::to_string(getInferLibMinorVersion()) + "." +
         std::to_string(getInferLibPatchVersion());
}

/// The first three numbers of `1.7.1.116`.
std::string release_of(const std::string& version) {
  std::size_t end = 0;
  for (int dots = 0; end < version.size() && (version[end] != '.' || ++dots < 3); ++end) {
  }
  return version.substr(0, end);
}

std::string listed(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : " or ") + item;
  return text;
}

}  // namespace

void Logger::log(Severity severity, const char* message) noexcept {
  if (severity > Severity::kERROR) return;
  try {
    last_ = message;
  } catch (...) {
    last_.clear();  // no memory for words
  }
}

void check_engine(const BudgetEntry& budget, const EngineEntry& engine, std::int64_t batch) {
  const std::string subject = "engine " + engine.file;
  const std::string wanted = engine.flavour + " " + release_of(engine.version);
  const std::string here = std::string(ELASTIC_TENSORRT_FLAVOUR) + " " + library_version();
  if (wanted != here)
    throw UnavailableError(subject, wanted, here, "install that version, or export the bundle for this one");
  const std::optional<Device> device = current_device();
  if (!device)
    throw UnavailableError(subject, "an NVIDIA GPU with a driver", "none", "run the budget on the CPU");
  const auto& known = engine.compute_capabilities;
  if (std::find(known.begin(), known.end(), device->compute_capability) == known.end()) {
    throw UnavailableError(subject, "a GPU of compute capability " + listed(known),
                           device->name + " of " + device->compute_capability,
                           "export the bundle for this card");
  }
  if (batch < 1 || batch > engine.max_batch) {
    throw InputError("batch", "1 to " + std::to_string(engine.max_batch), std::to_string(batch));
  }
  const VramNeed need = vram_needed(budget.size(engine), engine.max_context, batch);
  if (need.total > device->free_bytes) {
    throw UnavailableError(subject, gib(need.total) + " GiB of free GPU memory",
                           gib(device->free_bytes) + " GiB", "take a smaller budget or context");
  }
}

Engine::Engine(const Bundle& bundle, const EngineEntry& entry, const TensorRtOptions& options)
    : file_(entry.file), cache_file_(options.runtime_cache), runtime_(nvinfer1::createInferRuntime(logger_)) {
  if (!runtime_) fail("a TensorRT runtime");
  check_code(bundle, entry);
  load_plugins(entry, options);
  const MappedFile bytes(bundle.file(entry.file));
  engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
  if (!engine_) fail("an engine that can be read");
  if (engine_->getNbOptimizationProfiles() != 2) fail("an engine of two profiles");
  read_cache();
  activation_ = std::max<std::int64_t>(engine_->getDeviceMemorySizeV2(), 1);
  activation_memory_ = cuda::allocate(static_cast<std::size_t>(activation_), "activation memory");
  const cuda::Stream stream = cuda::make_stream();
  for (auto& context : decode_) context = make_context(0, options.cuda_graph, stream.get());
  prefill_ = make_context(1, false, stream.get());
  cuda::check(cudaStreamSynchronize(stream.get()), "preparing the engine");
}

Engine::~Engine() {
  try {
    write_cache();
  } catch (...) {
    return;  // a cache that cannot be written costs time at the next start, nothing else
  }
}

void Engine::load_plugins(const EngineEntry& entry, const TensorRtOptions& options) {
  const PluginSource source = plugin_source(entry, options.plugins, options.trust_engine);
  runtime_->setEngineHostCodeAllowed(source.carried);
  if (!source.library) return;
  const std::string path = source.library->string();
  if (!runtime_->getPluginRegistry().loadLibrary(path.c_str())) {
    throw UnavailableError(path, "a plugin library that can be loaded", logger_.last());
  }
}

std::unique_ptr<nvinfer1::IRuntimeConfig> Engine::make_config(bool replay) {
  std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine_->createRuntimeConfig());
  if (!config) fail("a runtime configuration");
  config->setExecutionContextAllocationStrategy(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED);
#ifdef ELASTIC_HAS_RUNTIME_CACHE
  if (cache_ && !config->setRuntimeCache(*cache_)) fail("a runtime cache that can be used");
  if (replay)
    replays_itself_ = config->setCudaGraphStrategy(nvinfer1::CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE);
#else
  (void)replay;
#endif
  return config;
}

std::unique_ptr<nvinfer1::IExecutionContext> Engine::make_context(int profile, bool replay,
                                                                  cudaStream_t stream) {
  const auto config = make_config(replay);
  std::unique_ptr<nvinfer1::IExecutionContext> context(engine_->createExecutionContext(config.get()));
  if (!context) fail("an execution context");
  context->setDeviceMemoryV2(activation_memory_.get(), activation_);
  if (!context->setOptimizationProfileAsync(profile, stream)) fail("profile " + std::to_string(profile));
  return context;
}

/// What earlier runs compiled. A cache of another card or version is refused by TensorRT and simply made
/// anew; so is one that cannot be read.
void Engine::read_cache() {
#ifdef ELASTIC_HAS_RUNTIME_CACHE
  if (!cache_file_) return;
  const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine_->createRuntimeConfig());
  if (config) cache_.reset(config->createRuntimeCache());
  std::error_code none;
  if (!cache_ || !std::filesystem::is_regular_file(*cache_file_, none)) return;
  try {
    const MappedFile bytes(*cache_file_);
    (void)cache_->deserialize(bytes.data(), static_cast<std::size_t>(bytes.size()));
  } catch (const Error&) {
    return;  // empty or unreadable: compiling takes longer, nothing else
  }
#endif
}

void Engine::write_cache() const {
#ifdef ELASTIC_HAS_RUNTIME_CACHE
  if (!cache_) return;
  const std::unique_ptr<nvinfer1::IHostMemory> bytes(cache_->serialize());
  if (!bytes || bytes->size() == 0) return;
  (void)replace_file(*cache_file_, bytes->data(),
                     bytes->size());  // where it cannot, the next start compiles again
#endif
}

void Engine::enqueue(nvinfer1::IExecutionContext& context, cudaStream_t stream) const {
  if (!context.enqueueV3(stream)) fail("the engine to run");
}

void Engine::fail(const std::string& what) const {
  throw BuildError("engine " + file_, what, logger_.last());
}

}  // namespace elastic::trt
