#include "driver/driver.h"

#include "driver/system.h"

namespace elastic {
namespace {

#ifdef _WIN32
constexpr const char* kNvml[] = {"nvml.dll"};
constexpr const char* kCuda[] = {"nvcuda.dll"};
#else
constexpr const char* kNvml[] = {"libnvidia-ml.so.1", "libnvidia-ml.so"};
constexpr const char* kCuda[] = {"libcuda.so.1"};
#endif

template <typename Function>
bool take(void* library, const char* name, Function*& into) {
  into = reinterpret_cast<Function*>(library_function(library, name));
  return into != nullptr;
}

template <std::size_t N>
void* load(const char* const (&names)[N]) {
  for (const char* name : names) {
    if (void* library = load_system_library(name)) return library;
  }
  return nullptr;
}

}  // namespace

const char* const kNvmlName = kNvml[0];

std::optional<Nvml> load_nvml() {
  void* const library = load(kNvml);
  Nvml found{};
  const bool whole = library && take(library, "nvmlInit_v2", found.init) &&
                     take(library, "nvmlShutdown", found.shutdown) &&
                     take(library, "nvmlDeviceGetHandleByIndex_v2", found.by_index) &&
                     take(library, "nvmlDeviceGetHandleByPciBusId_v2", found.by_bus) &&
                     take(library, "nvmlDeviceGetName", found.name) &&
                     take(library, "nvmlDeviceGetMemoryInfo", found.memory) &&
                     take(library, "nvmlDeviceGetCudaComputeCapability", found.capability);
  return whole ? std::optional(found) : std::nullopt;
}

std::optional<CudaDriver> load_cuda_driver() {
  void* const library = load(kCuda);
  CudaDriver found{};
  const bool whole = library && take(library, "cuInit", found.init) &&
                     take(library, "cuDeviceGet", found.device) &&
                     take(library, "cuDeviceGetPCIBusId", found.bus_id);
  return whole ? std::optional(found) : std::nullopt;
}

}  // namespace elastic
