#include "chunk_prefill.cuh"
#include "launch_width.cuh"

namespace elastic::mamba2 {
namespace {

template <typename Output, int kWidth>
struct Chunks {
  static constexpr const char* kName = "chunk_prefill";
  static constexpr int kThreads = kChunkThreads, kBytes = ChunkTiles<ChunkOperand, kWidth>::kBytes;
  static constexpr auto kernel = chunk_prefill<Output, ChunkOperand, kWidth>;
};

}  // namespace

Outcome launch_chunks(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream) {
  return launch_width<Chunks, PlainOutput>(args, workspace, width, stream);
}

Outcome launch_gated_chunks(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream) {
  return launch_width<Chunks, GatedOutput<bfloat16>>(args, workspace, width, stream);
}

}  // namespace elastic::mamba2
