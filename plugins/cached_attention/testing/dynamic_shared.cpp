// Bytes of shared memory that a launch of each `attend` asks for, a line each: ptxas does not see them.
#include <cstdio>

#include "../attend.cuh"

namespace {

using namespace elastic::attention;

template <int kDim, int kRows>
void show() {
  for (const char* type : {"float16", "bfloat16"})  // of the same size
    std::printf("attend<%s, %d, %d>: %d\n", type, kDim, kRows,
                AttendTraits<elastic::float16, kDim, kRows>::kSharedBytes);
}

}  // namespace

int main() {
  show<64, kDecodeRows>();
  show<64, kPrefillRows>();
  show<128, kDecodeRows>();
  show<128, kPrefillRows>();
  show<kMaxHeadDim, kDecodeRows>();
  show<kMaxHeadDim, kPrefillRows>();
  return 0;
}
