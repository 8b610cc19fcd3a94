// Functions of NVIDIA's driver, from libraries loaded by name: no toolkit and no link to them is needed.
// Private to the library.
#pragma once

#include <optional>

namespace elastic {

/// nvmlMemory_t.
struct NvmlMemory {
  unsigned long long total = 0, free = 0, used = 0;
};

/// Of nvml.h; every function gives 0 where it succeeds.
struct Nvml {
  int (*init)();
  int (*shutdown)();
  int (*by_index)(unsigned index, void** device);
  int (*by_bus)(const char* id, void** device);
  int (*name)(void* device, char* text, unsigned size);
  int (*memory)(void* device, NvmlMemory* memory);
  int (*capability)(void* device, int* major, int* minor);
};

/// Of cuda.h, of which none makes a context.
struct CudaDriver {
  int (*init)(unsigned flags);
  int (*device)(int* device, int index);
  int (*bus_id)(char* text, int size, int device);
};

/// What NVML is called here, for messages.
extern const char* const kNvmlName;

/// nullopt: no such library, or not one that has these functions. It stays loaded.
std::optional<Nvml> load_nvml();
std::optional<CudaDriver> load_cuda_driver();

/// CUDA's current card, as the program set it for this thread; 0 where CUDA does not say, or is not built in.
int current_cuda_card();

}  // namespace elastic
