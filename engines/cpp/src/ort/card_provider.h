// What onnxruntime itself has to say of cards. Private to the library.
#pragma once

#include "ort/onnx_api.h"

namespace elastic::onnx {

/// A card's memory by onnxruntime's name.
/// @param card CUDA's number of it
Owned<OrtMemoryInfo> card_memory_info(int card);

/// Adds the CUDA provider to a session; its libraries are loaded now. TF32 is off, since a twin computes in
/// float32. Throws UnavailableError with onnxruntime's words.
void append_cuda(OrtSessionOptions* options, int card);

}  // namespace elastic::onnx
