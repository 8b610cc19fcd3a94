// A stand-in for TensorRT's runtime interface: the calls of src/tensorrt_*.cpp. Its one engine is a model
// that can be predicted (fake_engine.cpp); it throws std::logic_error where a caller breaks a rule of the
// interface.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "fake_sdk.h"

namespace nvinfer1 {

enum class DataType : std::int32_t { kFLOAT, kHALF, kBF16, kINT64 };
enum class ExecutionContextAllocationStrategy : std::int32_t { kSTATIC, kON_PROFILE_CHANGE, kUSER_MANAGED };

struct Dims {
  static constexpr int MAX_DIMS = 8;
  std::int32_t nbDims;
  std::int64_t d[MAX_DIMS];
};

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
  virtual void log(Severity severity, const char* message) noexcept = 0;
  virtual ~ILogger() = default;
};

class IPluginRegistry {
 public:
  void* loadLibrary(const char* path) noexcept;
};

struct IHostMemory {
  std::string bytes;
  const void* data() const noexcept { return bytes.data(); }
  std::size_t size() const noexcept { return bytes.size(); }
};

struct IRuntimeCache {
  std::string bytes;
  bool deserialize(const void* data, std::size_t size) noexcept;
  IHostMemory* serialize() const noexcept { return new IHostMemory{bytes + "+"}; }
};

enum class CudaGraphStrategy : std::int32_t { kDISABLED, kWHOLE_GRAPH_CAPTURE };

struct IRuntimeConfig {
  ExecutionContextAllocationStrategy strategy = ExecutionContextAllocationStrategy::kSTATIC;
  void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy s) noexcept { strategy = s; }
  IRuntimeCache* createRuntimeCache() noexcept { return new IRuntimeCache; }
  bool setRuntimeCache(const IRuntimeCache&) noexcept { return true; }
  bool setCudaGraphStrategy(CudaGraphStrategy) noexcept { return false; }
};

class IExecutionContext {
 public:
  void setDeviceMemoryV2(void* memory, std::int64_t size) noexcept;
  bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t stream) noexcept;
  bool setTensorAddress(const char* name, void* memory) noexcept;
  bool setInputShape(const char* name, const Dims& dims) noexcept;
  bool enqueueV3(cudaStream_t stream);

 private:
  std::map<std::string, void*> addresses_;
  std::map<std::string, Dims> shapes_;
  void* scratch_ = nullptr;
  int profile_ = -1;
};

class ICudaEngine {
 public:
  std::int32_t getNbOptimizationProfiles() const noexcept { return 2; }
  std::int64_t getDeviceMemorySizeV2() const noexcept { return 512; }
  std::int32_t getNbIOTensors() const noexcept;
  const char* getIOTensorName(std::int32_t index) const noexcept;
  Dims getTensorShape(const char* name) const noexcept;
  DataType getTensorDataType(const char* name) const noexcept;
  IRuntimeConfig* createRuntimeConfig() noexcept { return new IRuntimeConfig; }
  IExecutionContext* createExecutionContext(IRuntimeConfig* config) noexcept;
};

class IRuntime {
 public:
  explicit IRuntime(ILogger& logger) : logger_(logger) {}
  IPluginRegistry& getPluginRegistry() noexcept { return registry_; }
  void setEngineHostCodeAllowed(bool) noexcept {}
  ICudaEngine* deserializeCudaEngine(const void* data, std::size_t size) noexcept;

 private:
  ILogger& logger_;
  IPluginRegistry registry_;
};

inline IRuntime* createInferRuntime(ILogger& logger) { return new IRuntime(logger); }

}  // namespace nvinfer1

int getInferLibMajorVersion();
int getInferLibMinorVersion();
int getInferLibPatchVersion();
