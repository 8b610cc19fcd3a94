// Where the last elements of a call beyond 2^31 elements lie, for test_views.py: offsets in elements, one a line. Nothing
// is read.
#include <cstdint>
#include <cstdio>

#include "mamba2_mixer/prefill_workspace.cuh"
#include "mamba2_mixer/views.cuh"

int main() {
  using namespace elastic;
  using namespace elastic::mamba2;
  Args args = {};
  args.shape = {65535, 65536, 128, 80, 8, 128, 4};
  const auto base = std::uintptr_t{1} << 40;
  args.projected = args.y = reinterpret_cast<void*>(base);
  args.workspace = reinterpret_cast<float*>(base);
  const Shape& s = args.shape;
  const int b = s.batch - 1, t = s.tokens - 1, head = s.heads - 1;
  const auto show = [&](const char* name, const void* address, std::size_t element) {
    std::printf("%s %lld\n", name,
                static_cast<long long>((reinterpret_cast<std::uintptr_t>(address) - base) / element));
  };
  const TokenView<bfloat16> token(args, b, t);
  show("z", token.z.address(0), 2);
  show("channels", token.channels.address(0), 2);
  show("dt", token.dt.address(0), 2);
  show("y", output_row<bfloat16>(args, b, t), 2);
  const PrefillWorkspace workspace = prefill_workspace(args);
  show("workspace", workspace.token(s, b, t), 4);
  show("workspace_dt", workspace.dt_of(s, b, head), 4);
  std::printf("conv_state %lld\n", static_cast<long long>(conv_state_offset(s, b)));
  std::printf("ssm_state %lld\n", static_cast<long long>(ssm_state_offset(s, b, head)));
  return 0;
}
