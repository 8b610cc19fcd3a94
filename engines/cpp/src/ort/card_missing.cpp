// Stands in for onnxruntime on a card in a library built without CUDA.
#include "ort/no_cuda.h"
#include "ort/onnx_memory.h"

namespace elastic::onnx {

void check_card_provider() { fail_without_cuda("this library, built without CUDA"); }

std::unique_ptr<Memory> make_card_memory() {
  check_card_provider();
  return nullptr;
}

}  // namespace elastic::onnx
