// Puts a scan of chunks on a stream by the instance that has the block's width.
#pragma once

#include "chunk_view.cuh"
#include "launch.h"

namespace elastic::mamba2 {

// Scan: of an Output and a width the kernel, the threads and the shared bytes of a block.
template <template <typename Output, int kWidth> class Scan, typename Output, int kWidth>
Outcome launch_instance(const Args& args, PrefillWorkspace workspace, cudaStream_t stream) {
  using Instance = Scan<Output, kWidth>;
  const dim3 grid(divide_up(args.shape.head_dim, kWidth) * args.shape.heads, args.shape.batch),
      block(Instance::kThreads);
  return {Instance::kName,
          launch_with_shared(Instance::kernel, grid, block, Instance::kBytes, stream, args, workspace)};
}

template <template <typename Output, int kWidth> class Scan, typename Output>
Outcome launch_width(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream) {
  switch (width) {
    case 48:
      return launch_instance<Scan, Output, 48>(args, workspace, stream);
    case 64:
      return launch_instance<Scan, Output, 64>(args, workspace, stream);
    default:
      return launch_instance<Scan, Output, 80>(args, workspace, stream);
  }
}

}  // namespace elastic::mamba2
