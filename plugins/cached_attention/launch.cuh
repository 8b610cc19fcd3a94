// Puts the kernels of one type on a stream. Instantiated once a type, in launch_<type>.cu.
#pragma once

#include "launch.h"

#include "append_kv.cuh"
#include "attend.cuh"
#include "merge.cuh"

namespace elastic::attention {

template <typename T>
Outcome launch_append(const Args& args, cudaStream_t stream) {
  const dim3 grid(divide_up(append_pieces(args.shape), kAppendThreads), 2, args.shape.batch);
  return {"append_kv", launch(append_kv<T>, grid, dim3(kAppendThreads), stream, args)};
}

template <typename T, int kDim, int kRows>
Outcome launch_attend(const Args& args, const Cut& cut, const Parts& parts, cudaStream_t stream) {
  const dim3 grid(cut.tiles * cut.splits, args.shape.key_value_heads, args.shape.batch);
  constexpr int kShared = AttendTraits<T, kDim, kRows>::kSharedBytes;
  return {"attend", launch_with_shared(attend<T, kDim, kRows>, grid, dim3(kAttendThreads), kShared, stream, args, cut,
                                       parts)};
}

// Heads are padded to the next size that there is.
template <typename T, int kRows>
Outcome launch_attend(const Args& args, const Cut& cut, const Parts& parts, cudaStream_t stream) {
  if (args.shape.head_dim <= 64) return launch_attend<T, 64, kRows>(args, cut, parts, stream);
  if (args.shape.head_dim <= 128) return launch_attend<T, 128, kRows>(args, cut, parts, stream);
  return launch_attend<T, kMaxHeadDim, kRows>(args, cut, parts, stream);
}

template <typename T>
Outcome launch_merge(const Args& args, const Cut& cut, const Parts& parts, cudaStream_t stream) {
  const dim3 grid(rows_of(args.shape), args.shape.key_value_heads, args.shape.batch);
  return {"merge", launch(merge<T>, grid, dim3(kMergeThreads), stream, args, cut, parts)};
}

template <typename T>
Outcome launch_attention(const Args& args, ElasticAttentionKernel kernel, cudaStream_t stream) {
  const Cut cut = choose_cut(args.shape, kernel, args.multiprocessors);
  const Parts parts = parts_of(args);
  Outcome outcome = launch_append<T>(args, stream);
  if (outcome.error == cudaSuccess)
    outcome = kernel == ELASTIC_ATTENTION_DECODE ? launch_attend<T, kDecodeRows>(args, cut, parts, stream)
                                                 : launch_attend<T, kPrefillRows>(args, cut, parts, stream);
  if (outcome.error == cudaSuccess && cut.splits > 1) outcome = launch_merge<T>(args, cut, parts, stream);
  return outcome;
}

}  // namespace elastic::attention
