// What the launchers give the C interface, and it the TensorRT glue.
#pragma once

#include <string>

#include "../common/device.cuh"
#include "select.h"

namespace elastic::attention {

// The last kernel launched and CUDA's answer to it.
struct Outcome {
  const char* kernel;
  cudaError_t error;
};

// The whole op for tensors of type T; args.multiprocessors is known.
template <typename T>
Outcome launch_attention(const Args& args, ElasticAttentionKernel kernel, cudaStream_t stream);

}  // namespace elastic::attention
