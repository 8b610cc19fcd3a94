// Stands in for the device backend in a library built without TensorRT.
#include "driver/driver.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/tensorrt_backend.h"
#include "tensorrt/tensorrt_build.h"

namespace elastic {

bool has_tensorrt_backend() { return false; }

int current_cuda_card() { return 0; }

PluginSource check_runs(const EngineEntry& engine, const Device&, const TensorRtOptions&) {
  throw UnavailableError(engine.file, "a library built with TensorRT", "one built without",
                         "configure with -DTENSORRT_RTX_ROOT=<the SDK's folder>");
}

std::unique_ptr<Backend> make_tensorrt_backend(const Bundle&, const BudgetEntry&, const EngineEntry& engine,
                                               const TensorRtOptions& options) {
  (void)check_runs(engine, {}, options);  // throws
  return nullptr;
}

}  // namespace elastic
