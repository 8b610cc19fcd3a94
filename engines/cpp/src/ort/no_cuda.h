// The reason why onnxruntime does not compute on a card. Private to the library; built without onnxruntime
// too.
#pragma once

#include <string>

#include "elastic_runtime/error.h"

namespace elastic {

/// As `NoCudaError` of Python's errors.py.
[[noreturn]] inline void fail_without_cuda(const std::string& found) {
  throw UnavailableError(
      "onnxruntime on a card", "a CUDA execution provider that works", found,
      "build with onnxruntime's package for CUDA, whose libraries are found where it runs, or "
      "run on the CPU (--device cpu)");
}

}  // namespace elastic
