// What the instructions of a card compute: products of fragments, and the narrow types.
#include "cuda_shim.h"
#include "races.h"

namespace elastic {

namespace {

// What a lane gives to ldmatrix, and what it gets.
struct Row {
  std::uint32_t pairs[4];
  const unsigned char* at;
};
static_assert(sizeof(Row) <= shim::kLaneBytes, "what a lane exchanges");

// Which elements of which row a lane gets of matrix i: (row, element) of the lower half of its register and of the
// upper one.
struct Place {
  int row, element;
};
template <bool kTransposed>
Place place(int lane, int i, int half) {
  const int r = lane / 4, c = lane % 4 * 2 + half;
  return kTransposed ? Place{8 * i + c, r} : Place{8 * i + r, c};
}

// What an instruction gives each lane is computed once, when the last lane has come: the sanitizer makes it dear.
template <bool kTransposed>
void hand_out_matrices(shim::Exchanged& lanes) {
  Row row;
  std::uint16_t element[shim::kLanes][8];
  for (int lane = 0; lane < shim::kLanes; ++lane) {
    std::memcpy(&row, lanes.lane[lane], sizeof row);
    std::memcpy(element[lane], row.at, sizeof element[lane]);
  }
  for (int lane = 0; lane < shim::kLanes; ++lane) {
    std::memcpy(&row, lanes.lane[lane], sizeof row);
    for (int i = 0; i < 4; ++i) {
      const Place low = place<kTransposed>(lane, i, 0), high = place<kTransposed>(lane, i, 1);
      row.pairs[i] = element[low.row][low.element] | element[high.row][high.element] << 16;
    }
    std::memcpy(lanes.lane[lane], &row, sizeof row);
  }
}

// Of functions that reach nothing but the arrays that they are given whole: no sanitizer would find anything in them,
// and they are most of what a test computes.
#if defined(__GNUC__) && !defined(__clang__)
#define ELASTIC_UNWATCHED __attribute__((noinline, optimize("O3"), no_sanitize("address,undefined")))
#else
#define ELASTIC_UNWATCHED
#endif

// Each element's products are added in the order of k.
ELASTIC_UNWATCHED void multiply_matrices(const float (&left)[16][16], const float (&right)[16][8],
                                         float (&product)[16][8]) {
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) product[row][column] += left[row][k] * right[k][column];
  }
}

struct Fragments {
  std::uint32_t a[4], b[2];
};
static_assert(sizeof(Fragments) <= shim::kLaneBytes, "what a lane exchanges");

// PTX ISA, mma.m16n8k16: which lane and register hold A(row, k) and B(k, column), and D(row, column).
template <typename T>
void multiply(shim::Exchanged& lanes) {
  Fragments all[shim::kLanes];
  for (int lane = 0; lane < shim::kLanes; ++lane) std::memcpy(&all[lane], lanes.lane[lane], sizeof all[lane]);
  const auto value = [](std::uint32_t pair, int k) {
    return to_float(T{static_cast<std::uint16_t>(pair >> (k % 2 * 16))});
  };
  float left[16][16], right[16][8], product[16][8] = {};
  for (int k = 0; k < 16; ++k) {
    for (int row = 0; row < 16; ++row) left[row][k] = value(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k);
    for (int column = 0; column < 8; ++column) right[k][column] = value(all[column * 4 + k % 8 / 2].b[k / 8], k);
  }
  multiply_matrices(left, right, product);
  for (int lane = 0; lane < shim::kLanes; ++lane) {
    float sums[4];
    for (int i = 0; i < 4; ++i) sums[i] = product[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    std::memcpy(lanes.lane[lane], sums, sizeof sums);
  }
}

}  // namespace

// PTX ISA, ldmatrix.x4: lane 8*i + r names row r of matrix i; each lane gets elements 2*(lane%4) and the next one of
// row lane/4 of each matrix, or transposed of column lane/4.
template <bool kTransposed>
void load_matrices(const void* row, std::uint32_t (&pairs)[4]) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) shim::fail("ldmatrix: a row that is not aligned to 16 bytes");
  Row mine = {{}, static_cast<const unsigned char*>(row)};
  const auto& lanes = shim::exchange("ldmatrix", &mine, sizeof mine, hand_out_matrices<kTransposed>);
  std::memcpy(&mine, lanes.lane[threadIdx.x % shim::kLanes], sizeof mine);
  std::memcpy(pairs, mine.pairs, sizeof pairs);
#if defined(ELASTIC_WATCH_RACES)
  for (int i = 0; i < 8; ++i) {
    const Place from = place<kTransposed>(static_cast<int>(threadIdx.x % shim::kLanes), i / 2, i % 2);
    std::memcpy(&mine, lanes.lane[from.row], sizeof mine);
    shim::races::reads(mine.at + from.element * sizeof(std::uint16_t), sizeof(std::uint16_t),
                       __builtin_return_address(0));
  }
#endif
}
template void load_matrices<false>(const void*, std::uint32_t (&)[4]);
template void load_matrices<true>(const void*, std::uint32_t (&)[4]);

template <typename T>
void multiply_add_fragments(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  Fragments mine;
  std::memcpy(mine.a, a, sizeof mine.a);
  std::memcpy(mine.b, b, sizeof mine.b);
  const auto& lanes = shim::exchange("mma", &mine, sizeof mine, multiply<T>);
  float sums[4];
  std::memcpy(sums, lanes.lane[threadIdx.x % shim::kLanes], sizeof sums);
  for (int i = 0; i < 4; ++i) d[i] += sums[i];
}
template void multiply_add_fragments<float16>(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2]);
template void multiply_add_fragments<bfloat16>(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2]);

float to_float(float16 v) {
  const int exponent = v.bits >> 10 & 0x1f, mantissa = v.bits & 0x3ff;
  // A normal one's exponent and mantissa stand 13 bits further left in a float, whose exponents begin 112 lower.
  float magnitude = float_of_bits(static_cast<std::uint32_t>((exponent + 112) << 23 | mantissa << 13));
  if (exponent == 0) magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  if (exponent == 0x1f) magnitude = mantissa ? std::nanf("") : HUGE_VALF;
  return v.bits & 0x8000 ? -magnitude : magnitude;
}

float16 half_of(float v) {
  const std::uint16_t sign = std::signbit(v) ? 0x8000 : 0;
  const auto with_sign = [&](int bits) { return float16{static_cast<std::uint16_t>(sign | bits)}; };
  if (std::isnan(v)) return with_sign(0x7e00);
  const float magnitude = std::fabs(v);
  if (magnitude >= 65520.f) return with_sign(0x7c00);
  if (magnitude < 6.103515625e-05f)  // below the normal range: steps of 2^-24
    return with_sign(static_cast<int>(std::nearbyint(std::ldexp(magnitude, 24))));
  int exponent;
  const float fraction = std::frexp(magnitude, &exponent);                          // in [0.5, 1)
  const int mantissa = static_cast<int>(std::nearbyint(std::ldexp(fraction, 11)));  // 1024 .. 2048
  return with_sign(((exponent + 14) << 10) + (mantissa - 1024));
}

}  // namespace elastic
