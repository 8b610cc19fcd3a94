#include "tensorrt/tensorrt_engine.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "elastic_runtime/error.h"
#include "elastic_runtime/mapped_file.h"
#include "elastic_runtime/plugin_library.h"
#include "elastic_runtime/sha256.h"
#include "files.h"
#include "format/interface.h"

namespace elastic::trt {

void Logger::log(Severity severity, const char* message) noexcept {
  if (severity > Severity::kWARNING) return;
  try {
    if (severity <= Severity::kERROR) {
      const std::lock_guard<std::mutex> lock(mutex_);
      last_ = message;
    }
    if (warn_) warn_(std::string("TensorRT: ") + message);
  } catch (...) {
    return;  // no memory for words, or the listener's own; TensorRT, which calls this, knows no exceptions
  }
}

std::function<void(const std::string&)> one_at_a_time(std::function<void(const std::string&)> warn) {
  if (!warn) return warn;
  return [warn = std::move(warn), mutex = std::make_shared<std::mutex>()](const std::string& text) {
    const std::lock_guard<std::mutex> lock(*mutex);
    warn(text);
  };
}

std::string Logger::last() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return last_.empty() ? "no reason given" : last_;
}

namespace {

constexpr std::size_t kQuick = std::size_t{256} << 20;  // bytes: as in Python; larger ones hold weights

/// Whether these are the bytes that were written. Throws DamageError.
void check_digest(const std::string& bytes, const std::filesystem::path& path, const Bundle& bundle,
                  const EngineEntry& entry) {
  const auto& files = bundle.manifest().files;
  const auto listed = std::find_if(files.begin(), files.end(),
                                   [&](const FileEntry& file) { return file.path == entry.file; });
  if (listed == files.end() || bytes.size() > kQuick) return;
  const std::string found = sha256(bytes);
  if (found == listed->sha256) return;
  throw DamageError(path_text(path), "sha256 " + listed->sha256.substr(0, 12) + "…",
                    found.substr(0, 12) + "…", "copy the bundle again, or export it again");
}

/// The engine's bytes, read once: what was looked through is what TensorRT gets, whatever becomes of the
/// file.
std::string read_engine(const Bundle& bundle, const EngineEntry& entry) {
  const std::filesystem::path path = bundle.file(entry.file);
  std::error_code none;
  const std::uintmax_t size = std::filesystem::file_size(path, none);
  std::string bytes = read_bytes(path, none ? 0 : static_cast<std::size_t>(size), "a readable engine");
  check_code(bytes, entry);
  check_digest(bytes, path, bundle, entry);
  return bytes;
}

/// TensorRT's word for what weights are stored in; none for a dtype of which weights.json knows nothing.
std::optional<nvinfer1::DataType> type_of(const std::string& stored) {
  if (stored == "bf16") return nvinfer1::DataType::kBF16;
  if (stored == "fp16") return nvinfer1::DataType::kHALF;
  if (stored == "fp32") return nvinfer1::DataType::kFLOAT;
  return stored == "int8" ? std::optional(nvinfer1::DataType::kINT8) : std::nullopt;
}

}  // namespace

Engine::Engine(const Bundle& bundle, const EngineEntry& entry, const PluginSource& plugins,
               const TensorRtOptions& options)
    : warn_(options.warn),
      logger_(options.warn),
      file_(entry.file),
      cache_file_(options.runtime_cache),
      runtime_(nvinfer1::createInferRuntime(logger_)) {
  if (!runtime_) fail("a TensorRT runtime");
  read(read_engine(bundle, entry), plugins);
  if (engine_->getNbOptimizationProfiles() != 2) fail("an engine of two profiles");
  check_tensors(entry);
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

void Engine::read(const std::string& bytes, const PluginSource& plugins) {
  check_valid(bytes.data(), static_cast<std::int64_t>(bytes.size()));
  load_plugins(plugins);
  engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
  if (!engine_)
    fail("an engine that can be read", "export the bundle again with the TensorRT that is installed");
}

void Engine::load_plugins(const PluginSource& source) {
  runtime_->setEngineHostCodeAllowed(source.carried);
  if (!source.library) return;
  const std::string path = source.library->string();
  if (!runtime_->getPluginRegistry().loadLibrary(path.c_str())) {
    throw UnavailableError(path, "a plugin library that can be loaded", logger_.last(),
                           "build plugins/ again with the SDK of the TensorRT that is installed");
  }
}

/// Whether TensorRT can run the engine here, by its header. Throws UnavailableError with the reason,
/// BuildError where these are no engine's bytes.
void Engine::check_valid([[maybe_unused]] const void* data, [[maybe_unused]] std::int64_t size) const {
#ifdef ELASTIC_HAS_RUNTIME_CACHE
  using Fault = nvinfer1::EngineInvalidityDiagnostics;
  struct Reason {
    Fault fault;
    const char *found, *todo;
  };
  static const Reason kReasons[] = {
      {Fault::kOLD_CUDA_DRIVER, "a driver that is too old", "update NVIDIA's driver"},
      {Fault::kOLD_CUDA_RUNTIME, "a CUDA runtime that is too old", "install the one of this TensorRT-RTX"},
      {Fault::kVERSION_MISMATCH, "another TensorRT-RTX than the one that built it",
       "install the TensorRT-RTX of the manifest"},
      {Fault::kUNSUPPORTED_CC, "a card whose class it was not built for", "export the bundle for this card"},
      {Fault::kINSUFFICIENT_GPU_MEMORY, "too little GPU memory", "take a smaller budget or context"},
      {Fault::kCUDA_ERROR, "an error of CUDA", "see whether nvidia-smi shows the card"},
  };
  std::uint64_t faults = 0;
  const auto validity = runtime_->getEngineValidity(data, size, &faults);
  const auto has = [&](Fault fault) { return (faults & static_cast<std::uint64_t>(fault)) != 0; };
  if (has(Fault::kMALFORMED_ENGINE)) {
    throw BuildError(file_, "an engine of TensorRT-RTX", "something else",
                     "copy the bundle again, or export it again");
  }
  if (validity == nvinfer1::EngineValidity::kSUBOPTIMAL)
    return warn(file_ + " was not built for this card and may be slow here: export with its --target");
  if (validity != nvinfer1::EngineValidity::kINVALID) return;
  for (const Reason& reason : kReasons) {
    if (has(reason.fault))
      throw UnavailableError(file_, "an engine that TensorRT-RTX can run here", reason.found, reason.todo);
  }
  throw UnavailableError(file_, "an engine that TensorRT-RTX can run here", "a refusal without a reason",
                         "install TensorRT-RTX again, and the driver that it needs");
#endif
}

/// Whether every tensor is the card's, where it is given an address, and shares the buffer that the manifest
/// says. TensorRT takes it for an error to be asked about a name that it does not know. Throws BuildError; an
/// alias that TensorRT does not tell of is said, for it is not known whether it copies.
void Engine::check_tensors(const EngineEntry& entry) const {
  std::set<std::string> names;
  for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
    const char* name = engine_->getIOTensorName(i);
    names.insert(name);
    const bool on_card = engine_->getTensorLocation(name) == nvinfer1::TensorLocation::kDEVICE;
    if (on_card && !engine_->isShapeInferenceIO(name)) continue;
    throw BuildError(file_ + ": " + name, "a tensor of the card's memory",
                     on_card ? "one of which TensorRT takes shapes" : "one of main memory",
                     "export the bundle again");
  }
  std::string unsaid;
  for (const OutputPort& port : entry.outputs) {
    if (names.count(port.name) == 0) refuse(port, "none of that name");
    if (!port.input) check_logits(port);
    const char* shared = engine_->getAliasedInputTensor(port.name.c_str());
    const bool must = port.alias && *port.alias == "must";
    if (!shared && must && unsaid.empty()) unsaid = port.name;
    if (shared && (!must || shared != *port.input))
      throw BuildError(file_ + ": " + port.name, must ? "that of " + *port.input : "its own buffer",
                       std::string("that of ") + shared, "export the bundle again");
  }
  if (!unsaid.empty())
    warn(file_ + ": TensorRT does not say that " + unsaid +
         " works in place: `elastic-run BUNDLE --verify` shows whether it does");
}

/// Whether the engine gives the logits that there will be room for. Throws BuildError.
void Engine::check_logits(const OutputPort& port) const {
  const nvinfer1::Dims dims = engine_->getTensorShape(port.name.c_str());
  if (engine_->getTensorDataType(port.name.c_str()) != nvinfer1::DataType::kFLOAT)
    refuse(port, "another type");
  std::vector<Dim> shape;
  for (int i = 0; i < dims.nbDims; ++i) shape.push_back({dims.d[i], {}});
  const bool fits = shape.size() == port.shape.size() && shape.back().size == port.shape.back().size;
  if (!fits) refuse(port, shape_text(shape));
}

void Engine::refuse(const OutputPort& port, const std::string& found) const {
  throw BuildError(file_ + ": " + port.name,
                   port.dtype + " " + shape_text(port.shape) + " as in manifest.json", found,
                   "export the bundle again");
}

bool Engine::recordable([[maybe_unused]] nvinfer1::IExecutionContext& context,
                        [[maybe_unused]] cudaStream_t stream) const {
#ifdef ELASTIC_HAS_RUNTIME_CACHE
  return context.isStreamCapturable(stream);
#else
  return true;
#endif
}

void Engine::warn(const std::string& text) const {
  if (warn_) warn_(text);
}

void Engine::check_weights(const WeightRecipe& recipe) const {
  std::map<std::string, const WeightInput*> inputs;
  for (const WeightInput& input : recipe.inputs) inputs[input.name] = &input;
  for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
    const char* name = engine_->getIOTensorName(i);
    const auto found = inputs.find(name);
    if (found == inputs.end()) continue;
    const WeightInput& input = *found->second;
    const nvinfer1::Dims dims = engine_->getTensorShape(name);
    const std::vector<std::int64_t> shape(dims.d, dims.d + std::max(dims.nbDims, 0));
    if (shape != input.shape() || engine_->getTensorDataType(name) != type_of(input.parts[0].dtype))
      throw InputError("weight " + show(name), "the shape and dtype that " + file_ + " has",
                       "others in weights.json", "export the bundle again");
    inputs.erase(found);
  }
  if (!inputs.empty())
    throw InputError("weight " + show(inputs.begin()->first), "an input of " + file_, "none of that name",
                     "export the bundle again");
}

std::unique_ptr<nvinfer1::IRuntimeConfig> Engine::make_config(bool replay) {
  std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine_->createRuntimeConfig());
  if (!config) fail("a runtime configuration");
  config->setExecutionContextAllocationStrategy(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED);
#ifdef ELASTIC_HAS_RUNTIME_CACHE
  if (cache_ && !config->setRuntimeCache(*cache_)) fail("a runtime cache that can be used");
  if (replay) {
    // A recorded step keeps its kernels, so those made for its one shape are compiled before the first.
    using Kernels = nvinfer1::DynamicShapesKernelSpecializationStrategy;
    config->setDynamicShapesKernelSpecializationStrategy(Kernels::kEAGER);
    replays_itself_ = config->setCudaGraphStrategy(nvinfer1::CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE);
  }
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

/// What earlier runs compiled; without a file the cache serves the contexts of this run, which share their
/// kernels. One of another card or version is refused by TensorRT and simply made anew; so is one that cannot
/// be read.
void Engine::read_cache() {
#ifdef ELASTIC_HAS_RUNTIME_CACHE
  const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine_->createRuntimeConfig());
  if (config) cache_.reset(config->createRuntimeCache());
  bool read = false;
  std::error_code none;
  if (cache_ && cache_file_ && std::filesystem::is_regular_file(*cache_file_, none)) {
    try {
      const MappedFile bytes(*cache_file_);
      read = cache_->deserialize(bytes.data(), static_cast<std::size_t>(bytes.size()));
    } catch (const Error&) {
      read = false;  // empty or unreadable: compiling takes longer, nothing else
    }
  }
  if (!read) warn("compiling the kernels of " + file_ + " for this card, once: up to half a minute");
#endif
}

void Engine::write_cache() const {
#ifdef ELASTIC_HAS_RUNTIME_CACHE
  if (!cache_ || !cache_file_) return;
  const std::unique_ptr<nvinfer1::IHostMemory> bytes(cache_->serialize());
  if (!bytes || bytes->size() == 0) return;
  std::error_code none;
  std::filesystem::create_directories(cache_file_->parent_path(), none);
  (void)replace_file(*cache_file_, bytes->data(),
                     bytes->size());  // where it cannot, the next start compiles again
#endif
}

void Engine::enqueue(nvinfer1::IExecutionContext& context, cudaStream_t stream) const {
  if (!context.enqueueV3(stream)) fail("the engine to run");
}

void Engine::fail(const std::string& what, const std::string& todo) const {
  throw BuildError(file_, what, logger_.last(), todo);
}

}  // namespace elastic::trt
