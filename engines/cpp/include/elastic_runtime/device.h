// The card, and how much of its memory is free, as the driver says before anything uses it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace elastic {

/// A GPU as `choose` needs it; bytes.
struct Device {
  std::string name, compute_capability;  ///< such as `12.0`
  std::int64_t free_bytes = 0, total_bytes = 0;
};

/// CUDA's current card, else its first. The driver's own library (NVML) is asked, as the Python runtime does,
/// and no CUDA context made: one takes memory, and the two would choose different budgets at the border. NVML
/// counts cards by PCI bus and CUDA the fastest first, so they are matched by the bus id; without CUDA's
/// driver the number is NVML's. Throws InputError with the reason where there is none.
Device find_device();

/// The same, nullopt where there is none or this library was built without TensorRT.
std::optional<Device> current_device();

}  // namespace elastic
