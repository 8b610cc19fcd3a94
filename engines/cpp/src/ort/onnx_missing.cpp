// Stands in for the host backend in a library built without onnxruntime.
#include "elastic_runtime/error.h"
#include "elastic_runtime/onnx_backend.h"
#include "ort/no_cuda.h"

namespace elastic {

bool has_onnx_backend() { return false; }

void check_onnx_card() { fail_without_cuda("this library, built without onnxruntime"); }

std::unique_ptr<Backend> make_onnx_backend(const Bundle&, const BudgetEntry&, const OnnxOptions&) {
  throw UnavailableError("onnxruntime", "a library built with it", "one built without",
                         "configure with -DELASTIC_ONNXRUNTIME_ROOT=<folder with include/ and lib/>");
}

}  // namespace elastic
