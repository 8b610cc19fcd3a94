// How conv_operands hands x, B and C to chunk_prefill: in the float32 rows of PrefillWorkspace, each segment of
// channels (one block's of a head, one group's B or C) as two-byte operands in the first half of its place, padded with
// zeros to whole 16 bytes, then its unit of that token, a power of two in float32: value = operand * unit,
// |operand| < 1. y of a head takes the place of its x.
#pragma once

#include "prefill_workspace.cuh"

namespace elastic::mamba2 {

using ChunkOperand = float16;     // of both kernels: an eighth of bfloat16's error, and units give it the range
constexpr int kOperandPiece = 8;  // operands in 16 bytes

// The rows of one segment in all tokens of a row of the batch.
struct OperandRows {
  float* first;  // of token 0
  int pitch;     // from token to token, in floats
  int count;     // operands, padding included

  ELASTIC_D OperandRows(const Args& args, const PrefillWorkspace& workspace, int b, int channel, int channels)
      : first(workspace.token(args.shape, b, 0) + channel),
        pitch(conv_channels(args.shape)),
        count(divide_up(channels, kOperandPiece) * kOperandPiece) {}

  template <typename Operand>
  ELASTIC_D Operand* operands(int token) const {
    static_assert(sizeof(Operand) * kOperandPiece == 16, "two bytes each");
    return reinterpret_cast<Operand*>(row(token));
  }
  // The same, two operands each.
  ELASTIC_D uint32_t* pairs(int token) const { return reinterpret_cast<uint32_t*>(row(token)); }
  // From a token to that `tokens` later.
  template <typename Operand>
  ELASTIC_D int64_t stride(int tokens) const {
    return static_cast<int64_t>(tokens) * pitch * static_cast<int64_t>(sizeof(float) / sizeof(Operand));
  }
  ELASTIC_D float* unit(int token) const { return row(token) + count / 2; }

 private:
  ELASTIC_D float* row(int token) const { return first + static_cast<int64_t>(token) * pitch; }
};

}  // namespace elastic::mamba2
