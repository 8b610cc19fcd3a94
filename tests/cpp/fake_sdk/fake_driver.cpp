// NVIDIA's driver libraries, as src/driver/driver.h asks for them.
#include "driver/driver.h"

#include <cstdio>
#include <cstring>

#include "fake_sdk.h"

using fake::state;

namespace elastic {

const char* const kNvmlName = "libnvidia-ml.so.1";

std::optional<Nvml> load_nvml() {
  if (!state().has_driver) return std::nullopt;
  Nvml nvml{};
  nvml.init = [] { return state().nvml_error; };
  nvml.shutdown = [] { return 0; };
  nvml.by_index = [](unsigned index, void** device) { return *device = &state(), index == 0 ? 0 : 6; };
  nvml.by_bus = [](const char* id, void** device) {
    state().asked_bus = id;
    return *device = &state(), 0;
  };
  nvml.name = [](void*, char* text, unsigned size) { return std::snprintf(text, size, "Fake RTX"), 0; };
  nvml.memory = [](void*, NvmlMemory* memory) {
    *memory = {state().free_bytes + state().context_bytes, state().free_bytes, state().context_bytes};
    return 0;
  };
  nvml.capability = [](void*, int* major, int* minor) {
    *major = state().major, *minor = state().minor;
    return 0;
  };
  return nvml;
}

std::optional<CudaDriver> load_cuda_driver() {
  if (!state().has_driver) return std::nullopt;
  CudaDriver cuda{};
  cuda.init = [](unsigned) { return state().has_device ? 0 : 100; };
  cuda.device = [](int* device, int index) { return *device = index, 0; };
  cuda.bus_id = [](char* text, int size, int device) {
    return std::snprintf(text, static_cast<std::size_t>(size), "0000:%02x:00.0", 0x65 + device), 0;
  };
  return cuda;
}

}  // namespace elastic
