// Bytes of shared memory that launches ask for besides a kernel's own arrays, for resources.py: "KERNEL: BYTES" a line.
#include <cstdio>

#include "../chunk_prefill.cuh"
#include "../chunk_resident.cuh"

using namespace elastic::mamba2;

template <int kWidth>
void show() {
  for (const char* output : {"PlainOutput", "GatedOutput<bfloat16>"}) {
    std::printf("chunk_prefill<%s, float16, %d>: %d\n", output, kWidth, ChunkTiles<ChunkOperand, kWidth>::kBytes);
    std::printf("chunk_resident<%s, float16, %d>: %d\n", output, kWidth, ResidentTiles<ChunkOperand, kWidth>::kBytes);
  }
}

int main() {
  show<48>();
  show<64>();
  show<80>();
  return 0;
}
