// What the instructions of a card compute: products of fragments, and the narrow types.
#include "cuda_shim.h"

namespace elastic {

// PTX ISA, ldmatrix.x4: lane 8*i + r names row r of matrix i; each lane gets elements 2*(lane%4) and the next one of
// row lane/4 of each matrix, or transposed of column lane/4.
void load_matrices(const void* row, bool transposed, std::uint32_t (&pairs)[4]) {
  struct Row {
    const void* address;
    std::uint16_t element[8];
  };
  static_assert(sizeof(Row) <= shim::kLaneBytes, "what a lane exchanges");
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) shim::fail("ldmatrix: a row that is not aligned to 16 bytes");
  const Row mine = {row, {}};
  const auto& all = shim::exchange("ldmatrix", &mine, sizeof mine, [](shim::Exchanged& rows) {
    for (auto& bytes : rows.lane) {  // all at once, as the instruction does: whoever goes on first may overwrite a row
      Row row_of_lane;
      std::memcpy(&row_of_lane, bytes, sizeof row_of_lane);
      std::memcpy(row_of_lane.element, row_of_lane.address, sizeof row_of_lane.element);
      std::memcpy(bytes, &row_of_lane, sizeof row_of_lane);
    }
  });
  const int lane = static_cast<int>(threadIdx.x % shim::kLanes);
  const auto element = [&](int matrix, int r, int c) {
    Row found;
    std::memcpy(&found, all.lane[8 * matrix + (transposed ? c : r)], sizeof found);
    return static_cast<std::uint32_t>(found.element[transposed ? r : c]);
  };
  for (int i = 0; i < 4; ++i)
    pairs[i] = element(i, lane / 4, lane % 4 * 2) | element(i, lane / 4, lane % 4 * 2 + 1) << 16;
}

// PTX ISA, mma.m16n8k16: which lane and register hold A(row, k) and B(k, column).
void multiply_add_fragments(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                            float (*value)(std::uint16_t)) {
  struct Fragments {
    std::uint32_t a[4], b[2];
  };
  static_assert(sizeof(Fragments) <= shim::kLaneBytes, "what a lane exchanges");
  Fragments mine;
  std::memcpy(mine.a, a, sizeof mine.a);
  std::memcpy(mine.b, b, sizeof mine.b);
  Fragments all[shim::kLanes];
  const auto& exchanged = shim::exchange("mma", &mine, sizeof mine);
  for (int lane = 0; lane < shim::kLanes; ++lane) std::memcpy(&all[lane], exchanged.lane[lane], sizeof mine);
  const auto half = [](std::uint32_t pair, int k) { return static_cast<std::uint16_t>(pair >> (k % 2 * 16)); };
  const int group = static_cast<int>(threadIdx.x % shim::kLanes) / 4, place = static_cast<int>(threadIdx.x) % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = group + i / 2 * 8, column = place * 2 + i % 2;
    float sum = 0.f;
    for (int k = 0; k < 16; ++k) {
      const std::uint32_t pair_a = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
      const std::uint32_t pair_b = all[column * 4 + k % 8 / 2].b[k / 8];
      sum += value(half(pair_a, k)) * value(half(pair_b, k));
    }
    d[i] += sum;
  }
}

float to_float(float16 v) {
  const int exponent = v.bits >> 10 & 0x1f, mantissa = v.bits & 0x3ff;
  float magnitude = std::ldexp(static_cast<float>(mantissa | 0x400), exponent - 25);
  if (exponent == 0) magnitude = std::ldexp(static_cast<float>(mantissa), -24);
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
