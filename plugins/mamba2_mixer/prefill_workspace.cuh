// What the kernels of a prefill hand to each other, in float32:
//   channels [B, T, dc]  x | B | C after convolution and SiLU; the scan puts y where x was. For chunk_prefill the same
//                        rows hold operands (operand_rows.cuh), so that a call needs as much memory on every card
//   dt       [B, H, T]
#pragma once

#include "views.cuh"

namespace elastic::mamba2 {

struct PrefillWorkspace {
  float* channels;
  float* dt;

  ELASTIC_HD float* token(const Shape& shape, int b, int t) const {
    return channels + token_index(shape, b, t) * conv_channels(shape);
  }
  ELASTIC_HD float* dt_of(const Shape& shape, int b, int head) const {
    return dt + (static_cast<int64_t>(b) * shape.heads + head) * shape.tokens;
  }
};

// Channels come first: they need the alignment of the workspace, dt none.
inline PrefillWorkspace prefill_workspace(const Args& args) {
  const int64_t tokens = static_cast<int64_t>(args.shape.batch) * args.shape.tokens;
  return {args.workspace, args.workspace + tokens * conv_channels(args.shape)};
}

}  // namespace elastic::mamba2
