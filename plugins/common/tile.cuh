// The vocabulary of kernels on tensor cores: tiles of two-byte elements in shared memory, and the fragments of them
// that the lanes of a warp hold for D = A*B + D, A [16, 16], B [16, 8], D [16, 8]. Device code and host shim alike;
// which lane holds which element is PTX's affair (mma.m16n8k16, ldmatrix) and stays behind these names. From sm_80 on,
// and of float16 on sm_75.
#pragma once

#include "device.cuh"

namespace elastic {

struct FragmentA {
  uint32_t pairs[4];

  // The lane's four columns; each of them in two rows.
  ELASTIC_D static int column(int i) { return static_cast<int>(threadIdx.x) % 4 * 2 + i % 2 + i / 2 * 8; }
};
struct FragmentB {
  uint32_t pairs[2];
};

// Row groupID = lane / 4 and row groupID + 8, columns 2 * (lane % 4) and the next one of each.
struct Accumulator {
  float at[4] = {};

  ELASTIC_D static int row(int i) { return static_cast<int>(threadIdx.x) % kWarp / 4 + i / 2 * 8; }
  ELASTIC_D static int column(int i) { return static_cast<int>(threadIdx.x) % 4 * 2 + i % 2; }
};

// kRows x kColumns elements in shared memory, every row followed by 16 bytes that are not used: with rows of an even
// number of 16-byte pieces eight of them, as ldmatrix reads them, lie in different banks.
template <typename T, int kRows, int kColumns>
class SharedTile {
 public:
  static_assert(sizeof(T) == 2 && kColumns % 16 == 0, "rows of whole 16x16 parts: pad the tile");
  static constexpr int kPitch = kColumns + 8;
  static constexpr int kElements = kRows * kPitch;

  ELASTIC_D explicit SharedTile(T* elements) : elements_(elements) {}
  ELASTIC_D T* at(int row, int column) const { return elements_ + row * kPitch + column; }

 private:
  T* elements_;
};

// The lane's row of the four 8x8 matrices that make up a 16x16 part: upper left, lower left, upper right, lower right.
ELASTIC_D int matrix_row() { return static_cast<int>(threadIdx.x) % 16; }
ELASTIC_D int matrix_column() { return static_cast<int>(threadIdx.x) % kWarp / 16 * 8; }

// A: the 16x16 part of the tile that begins at (row, column).
template <typename T, int kRows, int kColumns>
ELASTIC_D FragmentA load_a(const SharedTile<T, kRows, kColumns>& tile, int row, int column) {
  FragmentA a;
  load_matrices<false>(tile.at(row + matrix_row(), column + matrix_column()), a.pairs);
  return a;
}

// The lane's row of the four 8x8 matrices of a 16x16 part that is read as its transpose, in the order in which the
// fragment of the transpose wants them: upper left, upper right, lower left, lower right.
ELASTIC_D int transposed_row() {
  return static_cast<int>(threadIdx.x) % 8 + static_cast<int>(threadIdx.x) % kWarp / 16 * 8;
}
ELASTIC_D int transposed_column() { return static_cast<int>(threadIdx.x) % 16 / 8 * 8; }

// A: the transpose of the 16x16 part of the tile that begins at (row, column).
template <typename T, int kRows, int kColumns>
ELASTIC_D FragmentA load_a_transposed(const SharedTile<T, kRows, kColumns>& tile, int row, int column) {
  FragmentA a;
  load_matrices<true>(tile.at(row + transposed_row(), column + transposed_column()), a.pairs);
  return a;
}

// B of two products beside each other: the transpose of the 16x16 part that begins at (row, column).
template <typename T, int kRows, int kColumns>
ELASTIC_D void load_b_transposed(const SharedTile<T, kRows, kColumns>& tile, int row, int column, FragmentB (&b)[2]) {
  uint32_t pairs[4];
  load_matrices<false>(tile.at(row + transposed_row(), column + transposed_column()), pairs);
  b[0] = {{pairs[0], pairs[1]}};
  b[1] = {{pairs[2], pairs[3]}};
}

// B of two products beside each other: the part of 16 rows and 16 columns that begins at (row, column).
template <typename T, int kRows, int kColumns>
ELASTIC_D void load_b(const SharedTile<T, kRows, kColumns>& tile, int row, int column, FragmentB (&b)[2]) {
  uint32_t pairs[4];
  load_matrices<true>(tile.at(row + matrix_row(), column + matrix_column()), pairs);
  b[0] = {{pairs[0], pairs[1]}};
  b[1] = {{pairs[2], pairs[3]}};
}

// D += A*B in float32; T: the type of A and B, float16 or bfloat16.
template <typename T>
ELASTIC_D void multiply_add(Accumulator& d, const FragmentA& a, const FragmentB& b) {
  multiply_add_fragments<T>(d.at, a.pairs, b.pairs);
}

// A with its columns FragmentA::column(i) multiplied by factors[i], each element rounded once.
template <typename T>
ELASTIC_D FragmentA scale_columns(const FragmentA& a, const float (&factors)[4]) {
  FragmentA scaled;
  ELASTIC_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Pack<T, 2> pair = unpack_pair<T>(a.pairs[i]);
    const int first = i / 2 * 2;
    scaled.pairs[i] = pack_pair<T>(to_float(pair.at[0]) * factors[first], to_float(pair.at[1]) * factors[first + 1]);
  }
  return scaled;
}

// The accumulators of two products beside each other as the A of a next one: lanes hold the same elements of both.
template <typename T>
ELASTIC_D FragmentA pack_a(const Accumulator& left, const Accumulator& right) {
  return {{pack_pair<T>(left.at[0], left.at[1]), pack_pair<T>(left.at[2], left.at[3]),
           pack_pair<T>(right.at[0], right.at[1]), pack_pair<T>(right.at[2], right.at[3])}};
}

// The largest magnitude among accumulators; all of them multiplied.
template <int kCount>
ELASTIC_D float largest_magnitude(const Accumulator (&all)[kCount]) {
  float most = 0.f;
  ELASTIC_UNROLL
  for (int i = 0; i < 4 * kCount; ++i) most = fmaxf(most, fabsf(all[i / 4].at[i % 4]));
  return most;
}
template <int kCount>
ELASTIC_D void multiply(Accumulator (&all)[kCount], float factor) {
  ELASTIC_UNROLL
  for (int i = 0; i < 4 * kCount; ++i) all[i / 4].at[i % 4] *= factor;
}

// A of a 16x16 part as B of two products with its transpose: lanes hold the same elements of both.
ELASTIC_D void transpose(const FragmentA& a, FragmentB (&b)[2]) {
  b[0] = {{a.pairs[0], a.pairs[2]}};
  b[1] = {{a.pairs[1], a.pairs[3]}};
}

}  // namespace elastic
