// Puts the kernels of one activation type on a stream. Instantiated once a type, in launch_<type>.cu.
#pragma once

#include "launch.h"

#include "conv_prefill.cuh"
#include "decode_step.cuh"
#include "gated_norm.cuh"

namespace elastic::mamba2 {

template <typename T>
struct Launcher {
  using Decode = void (*)(Args, int);
  using Conv = void (*)(Args, PrefillWorkspace);

  static Decode decode_kernel(const ElasticMamba2Plan& plan) {
    if (plan.vector_state) return plan.wide_state ? decode_step<T, true, 2> : decode_step<T, true, 1>;
    return plan.wide_state ? decode_step<T, false, 2> : decode_step<T, false, 1>;
  }

  static Outcome decode(const Args& args, const ElasticMamba2Plan& plan, cudaStream_t stream) {
    const int tiles = divide_up(args.shape.head_dim, plan.passes * kDecodeRows);
    const dim3 grid(tiles * args.shape.heads, args.shape.batch);
    return {"decode_step",
            launch(decode_kernel(plan), grid, dim3(kDecodeThreads), stream, args, plan.passes)};
  }

  static Outcome convolve(const Args& args, const ElasticMamba2Plan& plan, PrefillWorkspace workspace,
                          cudaStream_t stream) {
    const int per_block = kConvThreads * (plan.vector_conv ? 4 : 1);
    const int blocks =
        divide_up(conv_channels(args.shape), per_block) + divide_up(args.shape.heads, kConvThreads);
    const dim3 grid(blocks, divide_up(args.shape.tokens, kConvTokens), args.shape.batch);
    const Conv kernel = plan.vector_conv ? conv_prefill<T, 4, 4> : conv_prefill<T, 1, kMaxTaps>;
    return {"conv_prefill", launch(kernel, grid, dim3(kConvThreads), stream, args, workspace)};
  }

  static Outcome normalise(const Args& args, PrefillWorkspace workspace, cudaStream_t stream) {
    const dim3 grid(args.shape.tokens * args.shape.groups, args.shape.batch);
    return {"gated_norm", launch(gated_norm<T>, grid, dim3(kNormThreads), stream, args, workspace)};
  }

  static Outcome prefill(const Args& args, const ElasticMamba2Plan& plan, cudaStream_t stream) {
    const PrefillWorkspace workspace = {args.workspace + prefill_channels_at(args.shape), args.workspace};
    Outcome outcome = convolve(args, plan, workspace, stream);
    if (outcome.error == cudaSuccess) outcome = launch_scan(args, plan, workspace, stream);
    if (outcome.error == cudaSuccess) outcome = normalise(args, workspace, stream);
    return outcome;
  }
};

template <typename T>
Outcome launch_mixer(const Args& args, const ElasticMamba2Plan& plan, cudaStream_t stream) {
  return plan.kernel == ELASTIC_MAMBA2_DECODE_STEP ? Launcher<T>::decode(args, plan, stream)
                                                   : Launcher<T>::prefill(args, plan, stream);
}

}  // namespace elastic::mamba2
