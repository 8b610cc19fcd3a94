// The one engine: per row it sums the tokens (conv_state, double-buffered), counts them (ssm_state, in place)
// and keeps them (key_cache, in place); its logits peak at (sum + count + w[1][1]) % V. Whatever breaks the
// interface throws.
#include <NvInferRuntime.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

struct Tensor {
  const char* name;
  nvinfer1::DataType type;
  nvinfer1::Dims dims;
};

using nvinfer1::DataType;
const std::vector<Tensor> kTensors = {
    {"input_ids", DataType::kINT64, {2, {-1, -1}}},
    {"position", DataType::kINT64, {1, {-1}}},
    {"length", DataType::kINT64, {1, {-1}}},
    {"conv_state.0", DataType::kFLOAT, {3, {-1, 1, 1}}},
    {"ssm_state.0", DataType::kFLOAT, {4, {-1, 1, 1, 1}}},
    {"key_cache.0", DataType::kFLOAT, {4, {-1, 1, fake::kContext, 1}}},
    {"w", DataType::kFLOAT, {2, {2, 2}}},
    {"logits", DataType::kFLOAT, {2, {-1, fake::kVocab}}},
    {"conv_state_out.0", DataType::kFLOAT, {3, {-1, 1, 1}}},
    {"ssm_state_out.0", DataType::kFLOAT, {4, {-1, 1, 1, 1}}},
    {"key_cache_out.0", DataType::kFLOAT, {4, {-1, 1, fake::kContext, 1}}},
};

const Tensor& tensor(const std::string& name) {
  for (const Tensor& known : kTensors) {
    if (name == known.name && name != fake::state().missing) return known;
  }
  throw std::logic_error("no tensor " + name);
}

void require(bool holds, const char* rule) {
  if (!holds) throw std::logic_error(rule);
}

/// One call on the addresses as they are now; the contents are those of the moment it runs.
void run(std::map<std::string, void*> at, std::int64_t batch, std::int64_t tokens) {
  const auto ints = [&](const char* name) { return static_cast<const std::int64_t*>(at[name]); };
  const auto floats = [&](const char* name) { return static_cast<float*>(at[name]); };
  for (std::int64_t row = 0; row < batch; ++row) {
    const std::int64_t length = ints("length")[row], position = ints("position")[row];
    require(length >= 0 && length <= tokens && position >= 0 && position + tokens <= fake::kContext,
            "position + T <= S");
    float sum = floats("conv_state.0")[row], kept = 0;
    float* cache = floats("key_cache.0") + row * fake::kContext;
    for (std::int64_t i = 0; i < position && length > 0; ++i) kept += cache[i];
    require(length == 0 || (kept == sum && floats("ssm_state.0")[row] == static_cast<float>(position)),
            "states of one row agree");
    for (std::int64_t i = 0; i < tokens; ++i) {
      const auto id = static_cast<float>(ints("input_ids")[row * tokens + i]);
      cache[position + i] = i < length ? id : -99;  // padding is written too
      sum += i < length ? id : 0;
    }
    floats("conv_state_out.0")[row] = sum;
    floats("ssm_state_out.0")[row] += static_cast<float>(length);
    const auto peak =
        static_cast<std::int64_t>(sum + floats("ssm_state.0")[row] + floats("w")[3]) % fake::kVocab;
    for (int id = 0; id < fake::kVocab; ++id)
      floats("logits")[row * fake::kVocab + id] = id == peak ? 1.0f : -1.0f;
  }
}

std::atomic<bool> logging{false};
std::thread logging_thread;

/// As TensorRT for RTX does while it compiles kernels: from a thread of its own, beside the caller's.
void begin_logging(nvinfer1::ILogger& logger) {
  logging = true;
  logging_thread = std::thread([&logger] {
    while (logging) {
      logger.log(nvinfer1::ILogger::Severity::kWARNING, "a warning of a thread");
      std::this_thread::sleep_for(std::chrono::microseconds(100));  // or others wait for a lock for ever
    }
  });
}

void end_logging() {
  logging = false;
  if (logging_thread.joinable()) logging_thread.join();
}

}  // namespace

namespace nvinfer1 {

void* IPluginRegistry::loadLibrary(const char* path) noexcept {
  fake::state().plugin = path;
  return fake::state().refuses_plugins || !fake::taken() ? nullptr : this;
}

bool IRuntimeCache::deserialize(const void* data, std::size_t size) noexcept {
  fake::state().cache_read = bytes = std::string(static_cast<const char*>(data), size);
  return true;
}

void IExecutionContext::setDeviceMemoryV2(void* memory, std::int64_t) noexcept { scratch_ = memory; }

bool IExecutionContext::setOptimizationProfileAsync(std::int32_t profile, cudaStream_t) noexcept {
  return profile_ = profile, fake::taken();
}

bool IExecutionContext::setTensorAddress(const char* name, void* memory) noexcept {
  return addresses_[name] = memory, memory && fake::taken();
}

bool IExecutionContext::setInputShape(const char* name, const Dims& dims) noexcept {
  for (int i = 0; i < dims.nbDims; ++i) {
    if (dims.d[i] < 1) return false;
  }
  return shapes_[name] = dims, fake::taken();
}

bool IExecutionContext::enqueueV3(cudaStream_t) {
  require(scratch_ != nullptr, "activation memory is given");
  for (const Tensor& known : kTensors)
    require(addresses_[known.name] != nullptr, "every tensor has an address");
  for (const char* name : {"input_ids", "position", "length", "conv_state.0", "ssm_state.0", "key_cache.0"}) {
    require(shapes_.count(name) && shapes_[name].d[0] == shapes_["input_ids"].d[0],
            "every input has its batch");
  }
  const std::int64_t batch = shapes_["input_ids"].d[0], tokens = shapes_["input_ids"].d[1];
  require(profile_ == 0 ? tokens == 1 : tokens <= fake::kMaxTokens, "T is within the profile");
  require(addresses_["conv_state.0"] != addresses_["conv_state_out.0"], "conv state is double-buffered");
  require(addresses_["ssm_state.0"] == addresses_["ssm_state_out.0"], "ssm state is in place");
  require(addresses_["key_cache.0"] == addresses_["key_cache_out.0"], "caches are in place");
  const auto work = [at = addresses_, batch, tokens] { run(at, batch, tokens); };
  if (fake::state().capturing) {
    *fake::state().capturing = work;
  } else {
    ++fake::state().enqueued;
    if (cudaStreamSynchronize(nullptr) != cudaSuccess) return false;  // what was asked of the stream before
    work();
  }
  return true;
}

std::int32_t ICudaEngine::getNbIOTensors() const noexcept {
  return static_cast<std::int32_t>(kTensors.size());
}

const char* ICudaEngine::getIOTensorName(std::int32_t index) const noexcept {
  const char* name = kTensors[static_cast<std::size_t>(index)].name;
  return name == fake::state().missing ? "another" : name;
}

Dims ICudaEngine::getTensorShape(const char* name) const noexcept {
  Dims dims = tensor(name).dims;
  if (std::string(name) == "logits") {
    dims.nbDims = static_cast<std::int32_t>(fake::state().logits.size());
    std::copy(fake::state().logits.begin(), fake::state().logits.end(), dims.d);
  }
  return dims;
}

DataType ICudaEngine::getTensorDataType(const char* name) const noexcept {
  if (tensor(name).name == std::string("logits")) return static_cast<DataType>(fake::state().logits_type);
  return std::string(name) == "w" ? static_cast<DataType>(fake::state().weight_type) : tensor(name).type;
}

IExecutionContext* ICudaEngine::createExecutionContext(IRuntimeConfig* config) noexcept {
  end_logging();
  if (config->strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED || !fake::taken()) return nullptr;
  fake::state().kernels.push_back(static_cast<int>(config->kernels));
  return new IExecutionContext;
}

const char* ICudaEngine::getAliasedInputTensor(const char* name) const noexcept {
  const auto found = fake::state().aliases.find(tensor(name).name);
  return found == fake::state().aliases.end() ? nullptr : found->second.c_str();
}

EngineValidity IRuntime::getEngineValidity(const void* data, std::int64_t size,
                                           std::uint64_t* faults) const noexcept {
  const std::string bytes(static_cast<const char*>(data), static_cast<std::size_t>(size));
  const std::string& refused = fake::state().refused;
  fake::state().judged = bytes;
  if (fake::state().when_judged) fake::state().when_judged();
  *faults = bytes == refused ? static_cast<std::uint64_t>(EngineInvalidityDiagnostics::kOLD_CUDA_DRIVER)
                             : fake::state().faults;
  return bytes == refused ? EngineValidity::kINVALID : static_cast<EngineValidity>(fake::state().validity);
}

ICudaEngine* IRuntime::deserializeCudaEngine(const void* data, std::size_t size) noexcept {
  std::vector<std::thread> threads;
  for (int i = 0; i < fake::state().threads_that_log; ++i) {
    threads.emplace_back([this] {
      for (int n = 0; n < 1000; ++n) {
        logger_.log(ILogger::Severity::kERROR, std::string(static_cast<std::size_t>(n), 'e').c_str());
        logger_.log(ILogger::Severity::kWARNING, "a warning");
        logger_.log(ILogger::Severity::kINFO, "nobody hears this");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string bytes(static_cast<const char*>(data), size);
  if (bytes != fake::state().judged) {
    logger_.log(ILogger::Severity::kERROR, "other bytes than those that were judged");
    return nullptr;
  }
  if (fake::state().logs_on) begin_logging(logger_);
  if (bytes.rfind("engine", 0) == 0 && fake::taken()) return new ICudaEngine;
  logger_.log(ILogger::Severity::kERROR, "magic tag does not match");
  return nullptr;
}

}  // namespace nvinfer1

int getInferLibMajorVersion() { return fake::state().version[0]; }
int getInferLibMinorVersion() { return fake::state().version[1]; }
int getInferLibPatchVersion() { return fake::state().version[2]; }
