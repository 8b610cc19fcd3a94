#include "chunk_prefill.cuh"
#include "launch.h"

namespace elastic::mamba2 {
namespace {

template <typename Output, int kWidth>
Outcome launch_width(const Args& args, PrefillWorkspace workspace, cudaStream_t stream) {
  const dim3 grid(divide_up(args.shape.head_dim, kWidth) * args.shape.heads, args.shape.batch);
  constexpr int kBytes = ChunkTiles<ChunkOperand, kWidth>::kBytes;
  const auto kernel = chunk_prefill<Output, ChunkOperand, kWidth>;
  return {"chunk_prefill", launch_with_shared(kernel, grid, dim3(kChunkThreads), kBytes, stream, args, workspace)};
}

template <typename Output>
Outcome launch_output(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream) {
  switch (width) {
    case 48:
      return launch_width<Output, 48>(args, workspace, stream);
    case 64:
      return launch_width<Output, 64>(args, workspace, stream);
    default:
      return launch_width<Output, 80>(args, workspace, stream);
  }
}

}  // namespace

Outcome launch_chunks(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream) {
  return launch_output<PlainOutput>(args, workspace, width, stream);
}

Outcome launch_gated_chunks(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream) {
  return launch_output<GatedOutput<bfloat16>>(args, workspace, width, stream);
}

}  // namespace elastic::mamba2
