// Whether an engine can run here, found out before anything loads; the same as
// elastic_runtime/tensorrt/preflight.py.
#include <algorithm>
#include <string>
#include <vector>

#include "driver/driver.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/plugin_library.h"
#include "tensorrt/tensorrt_build.h"
#include "tensorrt/tensorrt_engine.h"

namespace elastic {

bool has_tensorrt_backend() { return true; }

int current_cuda_card() {
  int index = 0;
  if (cudaGetDevice(&index) == cudaSuccess) return index;
  (void)cudaGetLastError();  // so that the next call does not report it again
  return 0;
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
  for (const std::string& item : items) text += (text.empty() ? "" : ", ") + item;
  return text;
}

/// A card of another class. Throws UnavailableError.
void check_card(const EngineEntry& engine, const Device& device) {
  const auto& known = engine.compute_capabilities;
  if (std::find(known.begin(), known.end(), device.compute_capability) != known.end()) return;
  throw UnavailableError(engine.file, "a card of compute capability " + listed(known),
                         device.name + " with " + device.compute_capability,
                         "export the bundle for it with another --target");
}

/// An engine is of the release that built it, build numbers aside. Throws UnavailableError.
void check_version(const EngineEntry& engine) {
  const std::string wanted = engine.flavour + " " + release_of(engine.version);
  const std::string here = std::string(ELASTIC_TENSORRT_FLAVOUR) + " " + library_version();
  if (wanted != here)
    throw UnavailableError(engine.file, wanted, here,
                           "install that version, or export the bundle for this one");
}

/// TensorRT for a newer CUDA than the driver's would only say that it cannot read the engine. Throws
/// UnavailableError.
void check_driver(const EngineEntry& engine) {
  int driver = 0;
  const int made_for = CUDART_VERSION / 1000;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0 || driver / 1000 >= made_for) return;
  throw UnavailableError(
      engine.file, "a driver that runs CUDA " + std::to_string(made_for),
      "one for CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10),
      "update NVIDIA's driver");
}

}  // namespace
}  // namespace elastic::trt

namespace elastic {

PluginSource check_runs(const EngineEntry& engine, const Device& device, const TensorRtOptions& options) {
  trt::check_card(engine, device);
  trt::check_version(engine);
  trt::check_driver(engine);
  return plugin_source(engine, device.compute_capability, options.plugins, options.trust_engine);
}

}  // namespace elastic

namespace elastic::trt {

PluginSource check_engine(const BudgetEntry& budget, const EngineEntry& engine,
                          const TensorRtOptions& options) {
  if (options.max_batch < 1 || options.max_batch > engine.max_batch) {
    throw InputError("batch", "1 to " + std::to_string(engine.max_batch), std::to_string(options.max_batch));
  }
  Device device;
  try {
    device = find_device();
  } catch (const InputError& error) {
    throw UnavailableError(engine.file, error.expected, error.found,
                           "look at the driver and CUDA_VISIBLE_DEVICES, or run the budget on the CPU");
  }
  PluginSource plugins = check_runs(engine, device, options);
  const VramNeed need = vram_needed(budget.size(engine), engine.max_context, options.max_batch);
  if (need.total > device.free_bytes) {
    throw UnavailableError(
        "budget " + in_quotes(budget.name) + " on " + device.name,
        gib(need.total) + " GiB of free memory (" + need.text() + ")",
        gib(device.free_bytes) + " GiB of " + gib(device.total_bytes),
        "close what uses the card, or take a smaller budget or an engine of a smaller context");
  }
  return plugins;
}

}  // namespace elastic::trt
