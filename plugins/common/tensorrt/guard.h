// No exception leaves the library: a body that throws becomes a line in TensorRT's log and a failure code.
#pragma once

#include <exception>

namespace elastic::trt {

// Writes an error to TensorRT's logger, or to standard error before one is known.
void log_error(const char* text) noexcept;

template <typename Result, typename Body>
Result guarded(Result failure, Body body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    log_error(error.what());
  } catch (...) {
    log_error("elastic plugins: an unknown exception");
  }
  return failure;
}

}  // namespace elastic::trt
