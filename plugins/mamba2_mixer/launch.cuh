// Puts the kernels of one activation type on a stream. Instantiated once a type, in launch_<type>.cu.
#pragma once

#include <type_traits>

#include "launch.h"

#include "conv_operands.cuh"
#include "conv_prefill.cuh"
#include "decode_step.cuh"
#include "gated_norm.cuh"
#include "select.h"

namespace elastic::mamba2 {

template <typename T>
Outcome launch_decode(const Args& args, cudaStream_t stream) {
  const int passes = decode_passes(args.shape, args.multiprocessors);
  const dim3 grid(args.shape.heads, divide_up(args.shape.head_dim, passes * kDecodeRows), args.shape.batch);
  const auto kernel = wide_state(args.shape) ? decode_step<T, 2> : decode_step<T, 1>;
  return {"decode_step", launch(kernel, grid, dim3(kDecodeThreads), stream, args, passes, heads_per_group(args.shape))};
}

template <typename T>
Outcome launch_conv(const Args& args, PrefillWorkspace workspace, cudaStream_t stream) {
  const bool vector = vector_conv(args.shape);
  const int channel_blocks = divide_up(conv_channels(args.shape), kConvThreads * (vector ? 4 : 1));
  const dim3 grid(channel_blocks + divide_up(args.shape.heads, kConvThreads), divide_up(args.shape.tokens, kConvTokens),
                  args.shape.batch);
  const auto kernel = vector ? conv_prefill<T, 4, 4> : conv_prefill<T, 1, kMaxTaps>;
  return {"conv_prefill", launch(kernel, grid, dim3(kConvThreads), stream, args, workspace)};
}

template <typename T, int kVec>
Outcome launch_segments(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream) {
  const int blocks = divide_up(segment_warps(args.shape, width, kVec), kSegmentWarps);
  const dim3 grid(blocks + divide_up(args.shape.heads, kConvThreads), divide_up(args.shape.tokens, kOperandTokens),
                  args.shape.batch);
  const auto kernel = conv_operands<T, ChunkOperand, kVec>;
  return {"conv_operands", launch(kernel, grid, dim3(kConvThreads), stream, args, workspace, width)};
}

template <typename T>
Outcome launch_conv_operands(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2)
    if (wide_conv(args.shape)) return launch_segments<T, 8>(args, workspace, width, stream);
  return launch_segments<T, 4>(args, workspace, width, stream);
}

template <typename T>
Outcome launch_norm(const Args& args, PrefillWorkspace workspace, cudaStream_t stream) {
  const dim3 grid(args.shape.tokens * args.shape.groups, args.shape.batch);
  const auto kernel = vector_norm(args.shape) ? gated_norm<T, 4> : gated_norm<T, 1>;
  return {"gated_norm", launch(kernel, grid, dim3(kNormThreads), stream, args, workspace)};
}

template <typename T>
Outcome launch_norm_in_place(const Args& args, cudaStream_t stream) {
  const dim3 grid(args.shape.tokens * args.shape.groups, args.shape.batch);
  const auto kernel = vector_norm(args.shape) ? norm_in_place<T, 4> : norm_in_place<T, 1>;
  return {"norm_in_place", launch(kernel, grid, dim3(kNormThreads), stream, args)};
}

template <typename T>
Outcome launch_scan_prefill(const Args& args, cudaStream_t stream) {
  const PrefillWorkspace workspace = prefill_workspace(args);
  Outcome outcome = launch_conv<T>(args, workspace, stream);
  if (outcome.error == cudaSuccess) outcome = launch_scan(args, workspace, stream);
  if (outcome.error == cudaSuccess) outcome = launch_norm<T>(args, workspace, stream);
  return outcome;
}

template <typename T>
Outcome launch_chunk_prefill(const Args& args, ElasticMamba2Kernel kernel, cudaStream_t stream) {
  const PrefillWorkspace workspace = prefill_workspace(args);
  const int width = chunk_width(args.shape.head_dim);
  const auto scan = is_resident(kernel) ? launch_resident : launch_chunks;
  Outcome outcome = launch_conv_operands<T>(args, workspace, width, stream);
  if (outcome.error == cudaSuccess) outcome = scan(args, workspace, width, stream);
  if (outcome.error == cudaSuccess) outcome = launch_norm<T>(args, workspace, stream);
  return outcome;
}

// bfloat16 only: what is gated before the norm needs the range of float32.
template <typename T>
Outcome launch_chunk_prefill_gated(const Args& args, ElasticMamba2Kernel kernel, cudaStream_t stream) {
  const PrefillWorkspace workspace = prefill_workspace(args);
  const int width = chunk_width(args.shape.head_dim);
  const auto scan = is_resident(kernel) ? launch_gated_resident : launch_gated_chunks;
  Outcome outcome = launch_conv_operands<T>(args, workspace, width, stream);
  if (outcome.error == cudaSuccess) outcome = scan(args, workspace, width, stream);
  if (outcome.error == cudaSuccess) outcome = launch_norm_in_place<T>(args, stream);
  return outcome;
}

template <typename T>
Outcome launch_mixer(const Args& args, ElasticMamba2Kernel kernel, cudaStream_t stream) {
  if (kernel == ELASTIC_MAMBA2_DECODE_STEP) return launch_decode<T>(args, stream);
  if (kernel == ELASTIC_MAMBA2_SCAN_PREFILL) return launch_scan_prefill<T>(args, stream);
  if constexpr (std::is_same_v<T, bfloat16>)
    if (is_gated(kernel)) return launch_chunk_prefill_gated<T>(args, kernel, stream);
  return launch_chunk_prefill<T>(args, kernel, stream);
}

}  // namespace elastic::mamba2
