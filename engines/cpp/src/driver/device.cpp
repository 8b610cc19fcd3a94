#include "elastic_runtime/device.h"

#include <array>
#include <string>

#include "driver/driver.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/tensorrt_backend.h"

namespace elastic {
namespace {

const char kSubject[] = "GPU memory";

/// NVML's errors that a machine without a usable card gives, the rest by their number.
std::string words_of(int code) {
  const std::string number = "NVML error " + std::to_string(code);
  switch (code) {
    case 9:
      return "no driver that is loaded (" + number + ")";
    case 15:
      return "a card that has fallen off the bus (" + number + ")";
    case 18:
      return "a driver and a library of different versions (" + number + ")";
    default:
      return number;
  }
}

void check(int code, const std::string& what) {
  if (code == 0) return;
  const char* todo =
      code == 18 ? "restart the machine, which loads the driver that was installed" : "name it with --vram";
  throw InputError(kSubject, "the NVIDIA driver to " + what, words_of(code), todo);
}

/// Where CUDA's card of that number sits; empty without CUDA's driver.
std::string bus_id_of(int index) {
  const std::optional<CudaDriver> cuda = load_cuda_driver();
  if (!cuda) return {};
  int device = 0;
  std::array<char, 32> text{};
  int code = cuda->init(0);
  if (code == 0) code = cuda->device(&device, index);
  if (code == 0) code = cuda->bus_id(text.data(), static_cast<int>(text.size()), device);
  if (code != 0)
    throw InputError(kSubject, "a card " + std::to_string(index) + " of CUDA",
                     "CUDA error " + std::to_string(code),
                     "look at CUDA_VISIBLE_DEVICES, or name the memory with --vram");
  return text.data();
}

Device describe(const Nvml& nvml, int index, const std::string& bus_id) {
  void* handle = nullptr;
  if (bus_id.empty())
    check(nvml.by_index(static_cast<unsigned>(index), &handle), "find card " + std::to_string(index));
  else
    check(nvml.by_bus(bus_id.c_str(), &handle), "find card " + bus_id);
  std::array<char, 96> name{};
  NvmlMemory memory;
  int major = 0, minor = 0;
  check(nvml.name(handle, name.data(), static_cast<unsigned>(name.size())), "name the card");
  check(nvml.memory(handle, &memory), "say how much memory is free");
  check(nvml.capability(handle, &major, &minor), "say the compute capability");
  return {name.data(), std::to_string(major) + "." + std::to_string(minor),
          static_cast<std::int64_t>(memory.free), static_cast<std::int64_t>(memory.total)};
}

}  // namespace

Device find_device() {
  const std::optional<Nvml> nvml = load_nvml();
  if (!nvml)
    throw InputError(kSubject, "an NVIDIA driver that says how much is free", std::string("no ") + kNvmlName,
                     "name it, as in --vram 12GiB");
  check(nvml->init(), "start");
  const struct Ended {
    const Nvml& nvml;
    ~Ended() { (void)nvml.shutdown(); }
  } ended{*nvml};
  const int index = current_cuda_card();
  return describe(*nvml, index, bus_id_of(index));
}

std::optional<Device> current_device() {
  if (!has_tensorrt_backend()) return std::nullopt;
  try {
    return find_device();
  } catch (const InputError&) {
    return std::nullopt;
  }
}

}  // namespace elastic
