// The vocabulary of tile.cuh on one block, for test_tile.py: tile_probe WHAT, numbers from standard input and to standard
// output. The same source compiles for a card.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tile.cuh"

namespace {

using namespace elastic;

constexpr int kM = 16, kN = 16, kK = 16;

// Every lane's registers as they are: A and B of a tile whose elements are their own positions, then those of its
// transpose.
__global__ void fragments(uint32_t* out) {
  ELASTIC_SHARED(float16, elements, (SharedTile<float16, kM, kK>::kElements));
  const SharedTile<float16, kM, kK> tile(elements);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < kM * kK; i += kWarp) {
    const auto position = static_cast<unsigned short>(i);
    *tile.at(i / kK, i % kK) = half_of_bits(position);
  }
  __syncthreads();
  const FragmentA a[2] = {load_a(tile, 0, 0), load_a_transposed(tile, 0, 0)};
  FragmentB b[2][2];
  load_b(tile, 0, 0, b[0]);
  load_b_transposed(tile, 0, 0, b[1]);
  FragmentB of_a[2][2];  // the A of the transpose is the tile's B
  transpose(a[1], of_a[0]);
  transpose(a[0], of_a[1]);
  for (int t = 0; t < 2; ++t)
    for (int i = 0; i < 4; ++i) {
      out[lane * 24 + t * 12 + i] = a[t].pairs[i];
      out[lane * 24 + t * 12 + 4 + i] = b[t][i / 2].pairs[i % 2];
      out[lane * 24 + t * 12 + 8 + i] = of_a[t][i / 2].pairs[i % 2];
    }
}

// D of registers that the host chose: a[4], b[2] a lane.
__global__ void products(float* d, const uint32_t* registers) {
  const int lane = static_cast<int>(threadIdx.x);
  FragmentA a;
  FragmentB b;
  for (int i = 0; i < 4; ++i) a.pairs[i] = registers[lane * 6 + i];
  for (int i = 0; i < 2; ++i) b.pairs[i] = registers[lane * 6 + 4 + i];
  Accumulator sum;
  multiply_add<float16>(sum, a, b);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = sum.at[i];
}

// What a fault is left out of, or put into, `gemm`.
enum Fault {
  kNone,
  kNoWait,
  kNoBarrier,
  kNotTransposed,
  kUnmasked,
  kDivergent,
  kTwoInstructions,
  kMisaligned,
  kPastTheTile,
  kHalfAWarp
};

// (A B) B, A and B [16, 16] of T, the first product handed on in registers. The first warp copies A, the second B; each
// writes half of the columns. Rows from `rows` on are not there.
template <typename T, int kFault>
__global__ void gemm(float* d, const T* a, const T* b, int rows) {
  using Tile = SharedTile<T, kM, kK>;
  ELASTIC_DYNAMIC_SHARED(T, elements);
  const Tile a_tile(elements), b_tile(elements + Tile::kElements);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row = lane / 2, column = lane % 2 * 8;  // of 16 bytes
  if (warp == 1)
    copy_async<16>(b_tile.at(row, column), b + row * kN + column);
  else
    copy_async_or_zero<16>(a_tile.at(row, column), a + row * kK + column, kFault == kUnmasked || row < rows);
  commit_async();
  if (kFault != kNoWait) wait_async<0>();
  if (kFault != kNoBarrier) __syncthreads();
  if (kFault == kDivergent && lane < 16) return;
  if (kFault == kTwoInstructions && lane < 16) __shfl_xor_sync(kAllLanes, 0.f, 1);
  const bool astray = lane == kWarp - 1;  // the one lane whose row is wrong
  const FragmentA left = load_a(a_tile, 0, kFault == kMisaligned && astray ? 1 : 0);
  FragmentB right[2];
  if constexpr (kFault == kNotTransposed) {
    const FragmentA wrong = load_a(b_tile, 0, 0);
    right[0] = {{wrong.pairs[0], wrong.pairs[1]}};
    right[1] = {{wrong.pairs[2], wrong.pairs[3]}};
  } else {
    load_b(b_tile, kFault == kPastTheTile && astray ? 1 : 0, 0, right);
  }
  Accumulator first[2], second[2];
  for (int i = 0; i < 2; ++i) multiply_add<T>(first[i], left, right[i]);
  const FragmentA handed = pack_a<T>(first[0], first[1]);
  for (int i = 0; i < 2; ++i) multiply_add<T>(second[i], handed, right[i]);
  for (int e = 0; e < 4; ++e)
    if (Accumulator::row(e) < rows)
      d[Accumulator::row(e) * kN + Accumulator::column(e) + warp * 8] = warp == 0 ? second[0].at[e] : second[1].at[e];
  if (kFault == kNoWait) wait_async<0>();  // too late for the products
}

template <typename T>
std::vector<T> read(std::size_t count) {
  std::vector<T> values(count);
  if (std::fread(values.data(), sizeof(T), count, stdin) != count) std::exit(3);
  return values;
}
// On the device, exactly as long as it is.
template <typename T>
T* put(const std::vector<T>& values) {
  void* memory = nullptr;
  (void)cudaMalloc(&memory, values.size() * sizeof(T));
  (void)cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice);
  return static_cast<T*>(memory);
}
template <typename T>
void show(T* memory, std::size_t count) {
  std::vector<T> values(count);
  (void)cudaDeviceSynchronize();
  (void)cudaMemcpy(values.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost);
  std::fwrite(values.data(), sizeof(T), count, stdout);
  (void)cudaFree(memory);
}

template <typename T, int kFault = kNone>
void show_gemm(int rows) {
  T* const a = put(read<T>(static_cast<std::size_t>(rows) * kK));
  T* const b = put(read<T>(kK * kN));
  float* const d = put(std::vector<float>(static_cast<std::size_t>(rows) * kN));
  constexpr int kBytes = 2 * SharedTile<T, kM, kK>::kElements * static_cast<int>(sizeof(T));
  constexpr int kThreads = 2 * kWarp - (kFault == kHalfAWarp ? kWarp / 2 : 0);
  (void)launch_with_shared(gemm<T, kFault>, dim3(1), dim3(kThreads), kBytes, nullptr, d, static_cast<const T*>(a),
                           static_cast<const T*>(b), rows);
  show(d, static_cast<std::size_t>(rows) * kN);
  (void)cudaFree(a);
  (void)cudaFree(b);
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) return 2;
  const char* what = words[1];
  const int rows = std::atoi(words[2]);
  const auto is = [what](const char* name) { return std::strcmp(what, name) == 0; };
  if (is("fragments")) {
    uint32_t* const out = put(std::vector<uint32_t>(kWarp * 24));
    (void)launch(fragments, dim3(1), dim3(kWarp), nullptr, out);
    show(out, kWarp * 24);
  }
  if (is("products")) {
    uint32_t* const registers = put(read<uint32_t>(kWarp * 6));
    float* const d = put(std::vector<float>(kWarp * 4));
    (void)launch(products, dim3(1), dim3(kWarp), nullptr, d, static_cast<const uint32_t*>(registers));
    show(d, kWarp * 4);
    (void)cudaFree(registers);
  }
  if (is("float16")) show_gemm<float16>(rows);
  if (is("bfloat16")) show_gemm<bfloat16>(rows);
  if (is("no wait")) show_gemm<float16, kNoWait>(rows);
  if (is("no barrier")) show_gemm<float16, kNoBarrier>(rows);
  if (is("not transposed")) show_gemm<float16, kNotTransposed>(rows);
  if (is("unmasked")) show_gemm<float16, kUnmasked>(rows);
  if (is("divergent")) show_gemm<float16, kDivergent>(rows);
  if (is("two instructions")) show_gemm<float16, kTwoInstructions>(rows);
  if (is("misaligned")) show_gemm<float16, kMisaligned>(rows);
  if (is("past the tile")) show_gemm<float16, kPastTheTile>(rows);
  if (is("half a warp")) show_gemm<float16, kHalfAWarp>(rows);
  return 0;
}
