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

enum class DataType : std::int32_t { kFLOAT, kHALF, kBF16, kINT64, kINT8, kFP8 };
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
  fake::Living living{};
  const void* data() const noexcept { return bytes.data(); }
  std::size_t size() const noexcept { return bytes.size(); }
};

struct IRuntimeCache {
  std::string bytes;
  fake::Living living{};
  bool deserialize(const void* data, std::size_t size) noexcept;
  IHostMemory* serialize() const noexcept { return fake::taken() ? new IHostMemory{bytes + "+"} : nullptr; }
};

enum class CudaGraphStrategy : std::int32_t { kDISABLED, kWHOLE_GRAPH_CAPTURE };
enum class DynamicShapesKernelSpecializationStrategy : std::int32_t { kLAZY, kEAGER, kNONE };
enum class TensorLocation : std::int32_t { kDEVICE, kHOST };
enum class EngineValidity : std::int32_t { kVALID, kSUBOPTIMAL, kINVALID };
enum class EngineInvalidityDiagnostics : std::uint64_t {
  kVERSION_MISMATCH = 1,
  kUNSUPPORTED_CC = 2,
  kOLD_CUDA_DRIVER = 4,
  kOLD_CUDA_RUNTIME = 8,
  kINSUFFICIENT_GPU_MEMORY = 16,
  kMALFORMED_ENGINE = 32,
  kCUDA_ERROR = 64
};

struct IRuntimeConfig {
  fake::Living living;
  ExecutionContextAllocationStrategy strategy = ExecutionContextAllocationStrategy::kSTATIC;
  void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy s) noexcept { strategy = s; }
  IRuntimeCache* createRuntimeCache() noexcept { return fake::taken() ? new IRuntimeCache : nullptr; }
  bool setRuntimeCache(const IRuntimeCache&) noexcept { return fake::taken(); }
  DynamicShapesKernelSpecializationStrategy kernels = DynamicShapesKernelSpecializationStrategy::kLAZY;
  void setDynamicShapesKernelSpecializationStrategy(DynamicShapesKernelSpecializationStrategy s) noexcept {
    kernels = s;
  }
  bool setCudaGraphStrategy(CudaGraphStrategy) noexcept { return fake::state().replays_itself; }
};

class IExecutionContext {
 public:
  void setDeviceMemoryV2(void* memory, std::int64_t size) noexcept;
  bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t stream) noexcept;
  bool setTensorAddress(const char* name, void* memory) noexcept;
  bool setInputShape(const char* name, const Dims& dims) noexcept;
  bool enqueueV3(cudaStream_t stream);
  bool isStreamCapturable(cudaStream_t) noexcept { return fake::state().recordable; }

 private:
  std::map<std::string, void*> addresses_;
  std::map<std::string, Dims> shapes_;
  void* scratch_ = nullptr;
  int profile_ = -1;
  fake::Living living_;
};

class ICudaEngine {
 public:
  std::int32_t getNbOptimizationProfiles() const noexcept { return 2; }
  std::int64_t getDeviceMemorySizeV2() const noexcept { return 512; }
  std::int32_t getNbIOTensors() const noexcept;
  const char* getIOTensorName(std::int32_t index) const noexcept;
  Dims getTensorShape(const char* name) const noexcept;
  DataType getTensorDataType(const char* name) const noexcept;
  TensorLocation getTensorLocation(const char* name) const noexcept {
    return name == fake::state().on_host ? TensorLocation::kHOST : TensorLocation::kDEVICE;
  }
  bool isShapeInferenceIO(const char* name) const noexcept { return name == fake::state().shapes_of; }
  const char* getAliasedInputTensor(const char* name) const noexcept;
  IRuntimeConfig* createRuntimeConfig() noexcept { return fake::taken() ? new IRuntimeConfig : nullptr; }
  IExecutionContext* createExecutionContext(IRuntimeConfig* config) noexcept;

 private:
  fake::Living living_;
};

class IRuntime {
 public:
  explicit IRuntime(ILogger& logger) : logger_(logger) {}
  IPluginRegistry& getPluginRegistry() noexcept { return registry_; }
  void setEngineHostCodeAllowed(bool) noexcept {}
  EngineValidity getEngineValidity(const void* data, std::int64_t size, std::uint64_t* faults) const noexcept;
  ICudaEngine* deserializeCudaEngine(const void* data, std::size_t size) noexcept;

 private:
  ILogger& logger_;
  IPluginRegistry registry_;
  fake::Living living_;
};

inline IRuntime* createInferRuntime(ILogger& logger) { return fake::taken() ? new IRuntime(logger) : nullptr; }

}  // namespace nvinfer1

int getInferLibMajorVersion();
int getInferLibMinorVersion();
int getInferLibPatchVersion();
