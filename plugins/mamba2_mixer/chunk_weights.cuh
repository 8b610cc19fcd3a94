// The products of a chunk's tokens with each other, C B^T, in parts of 16 tokens by 16: weighed to what x is multiplied by.
#pragma once

#include "../common/tile.cuh"
#include "chunk_scalars.cuh"

namespace elastic::mamba2 {

constexpr int kRowParts = kChunk / kPart;  // of a chunk

// The part at (row_part, part), beside each other its columns 0 to 7 and 8 to 15. Decay from an earlier part's end to the
// row, and from the column to that end: each is at most 1.
ELASTIC_D void weigh(Accumulator (&products)[2], int row_part, int part, const ChunkScalars& scalars) {
  const float end = scalars.at(Scalar::kCum, part * kPart + kPart - 1);
  float row[2];
  ELASTIC_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int token = row_part * kPart + Accumulator::row(2 * r);
    row[r] = quick_exp2(fminf(scalars.at(Scalar::kCum, token) - end, 0.f)) * scalars.at(Scalar::kUnit, token);
  }
  ELASTIC_UNROLL
  for (int e = 0; e < 8; ++e) {
    const int column = part * kPart + e / 4 * 8 + Accumulator::column(e % 4);
    products[e / 4].at[e % 4] *= row[e % 4 / 2] * scalars.at(Scalar::kToPartEnd, column);
  }
}

// A part on the diagonal, or past it: the decay from each token to each. What is above the diagonal is no part of the sum,
// whatever it is.
ELASTIC_D void weigh_to_diagonal(Accumulator (&products)[2], int row_part, int part, const ChunkScalars& scalars) {
  ELASTIC_UNROLL
  for (int e = 0; e < 8; ++e) {
    const int row = row_part * kPart + Accumulator::row(e % 4);
    const int column = part * kPart + e / 4 * 8 + Accumulator::column(e % 4);
    const float decay = quick_exp2(fminf(scalars.at(Scalar::kCum, row) - scalars.at(Scalar::kCum, column), 0.f));
    const float weight = decay * scalars.at(Scalar::kUnit, row) * scalars.at(Scalar::kWeight, column);
    float& product = products[e / 4].at[e % 4];
    product = row >= column ? product * weight : 0.f;
  }
}

}  // namespace elastic::mamba2
