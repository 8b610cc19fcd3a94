#include "launch.h"
#include "scan_prefill.cuh"
#include "select.h"

namespace elastic::mamba2 {
namespace {

template <int kSteps, int kRows>
Outcome launch_variant(const Args& args, PrefillWorkspace workspace, cudaStream_t stream) {
  using Traits = ScanTraits<kSteps, kRows>;
  const int wanted = divide_up(args.shape.head_dim, Traits::kRowsPerWarp);
  const int warps = wanted < kScanMaxWarps ? wanted : kScanMaxWarps;
  const dim3 grid(divide_up(args.shape.head_dim, warps * Traits::kRowsPerWarp) * args.shape.heads, args.shape.batch);
  const auto kernel = vector_scan(args.shape) ? scan_prefill<kSteps, kRows, true> : scan_prefill<kSteps, kRows, false>;
  return {"scan_prefill", launch(kernel, grid, dim3(warps * kWarp), stream, args, workspace)};
}

}  // namespace

Outcome launch_scan(const Args& args, PrefillWorkspace workspace, cudaStream_t stream) {
  // Registers: 4 rows of 16 columns, or 2 rows of 32.
  return wide_state(args.shape) ? launch_variant<8, 2>(args, workspace, stream)
                                : launch_variant<4, 4>(args, workspace, stream);
}

}  // namespace elastic::mamba2
