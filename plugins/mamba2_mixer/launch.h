// What the launchers give the C interface.
#pragma once

#include "../common/device.cuh"
#include "elastic_mamba2.h"
#include "prefill_workspace.cuh"

namespace elastic::mamba2 {

// The last kernel launched and CUDA's answer to it.
struct Outcome {
  const char* kernel;
  cudaError_t error;
};

// The whole mixer for activations of type T, by a kernel that runs the shape; args.multiprocessors is known.
template <typename T>
Outcome launch_mixer(const Args& args, ElasticMamba2Kernel kernel, cudaStream_t stream);

// Tensor cores; operands in two bytes of their own, whatever T is. conv_operands has run with the same `width`.
Outcome launch_chunks(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream);
Outcome launch_resident(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream);
// The same of bfloat16 activations, with y * silu(z) in args.y.
Outcome launch_gated_chunks(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream);
Outcome launch_gated_resident(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream);

// The scan works in float32 whatever T is.
Outcome launch_scan(const Args& args, PrefillWorkspace workspace, cudaStream_t stream);

}  // namespace elastic::mamba2
