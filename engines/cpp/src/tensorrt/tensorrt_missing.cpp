// Stands in for the device backend in a library built without TensorRT.
#include "elastic_runtime/error.h"
#include "elastic_runtime/tensorrt_backend.h"

namespace elastic {

bool has_tensorrt_backend() { return false; }

std::optional<Device> current_device() { return std::nullopt; }

std::unique_ptr<Backend> make_tensorrt_backend(const Bundle&, const BudgetEntry&, const EngineEntry& engine,
                                               const TensorRtOptions&) {
  throw UnavailableError("engine " + engine.file, "a library built with TensorRT", "one built without",
                         "configure with -DTENSORRT_RTX_ROOT=<the SDK's folder>");
}

}  // namespace elastic
