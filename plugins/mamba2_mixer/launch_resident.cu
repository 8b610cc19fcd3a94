#include "chunk_resident.cuh"
#include "launch_width.cuh"

namespace elastic::mamba2 {
namespace {

template <typename Output, int kWidth>
struct Resident {
  static constexpr const char* kName = "chunk_resident";
  static constexpr int kThreads = ResidentBlock<kWidth>::kThreads, kBytes = ResidentTiles<ChunkOperand, kWidth>::kBytes;
  static constexpr auto kernel = chunk_resident<Output, ChunkOperand, kWidth>;
};

}  // namespace

Outcome launch_resident(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream) {
  return launch_width<Resident, PlainOutput>(args, workspace, width, stream);
}

Outcome launch_gated_resident(const Args& args, PrefillWorkspace workspace, int width, cudaStream_t stream) {
  return launch_width<Resident, GatedOutput<bfloat16>>(args, workspace, width, stream);
}

}  // namespace elastic::mamba2
