// Which kernel and which variant of it runs for which shape, and how much memory it needs: pure host functions, no
// CUDA.
#pragma once

#include <string>

#include "elastic_mamba2.h"
#include "limits.h"

namespace elastic::mamba2 {

// Empty, or what is wrong with the shape: subject, expected, found.
std::string check_shape(const Shape& shape);

// What of a call decides which kernel runs it, besides what was asked for.
struct Call {
  Shape shape;         // checked
  int32_t activation;  // checked ElasticDtype
  int capability;      // of the card, major
};

// Empty and *chosen set, never to ELASTIC_MAMBA2_AUTO; or why the kernel asked for cannot run this call.
std::string choose_kernel(const Call& call, int32_t asked, ElasticMamba2Kernel* chosen);

// Enough for every kernel that may run a checked shape.
ElasticMamba2Requirements requirements_of(const Shape& shape);

// Passes of a decode block over a head's rows.
int decode_passes(const Shape& shape, int multiprocessors);

// Shapes that decode_step runs: one token, and every access to state, weights and norm whole.
constexpr bool decodes(const Shape& s) {
  return s.tokens == 1 && s.conv_width == kDecodeTaps && s.state_size % 4 == 0 && group_channels(s) % 4 == 0;
}
constexpr bool wide_state(const Shape& s) { return s.state_size > 128; }
// 16-byte copies to shared memory.
constexpr bool vector_scan(const Shape& s) { return s.state_size % 4 == 0 && s.head_dim % 4 == 0; }
// Four channels an access: every row of `projected` begins at a multiple of four elements, and so does x|B|C inside it;
// for the norm, so does every group.
constexpr bool vector_conv(const Shape& s) { return vector_scan(s) && s.heads % 4 == 0 && s.conv_width == 4; }
// Eight channels of two bytes an access.
constexpr bool wide_conv(const Shape& s) {
  return vector_conv(s) && s.state_size % 8 == 0 && s.head_dim % 8 == 0 && s.heads % 8 == 0;
}
// Whole pieces of eight operands, and place for a unit behind them: see operand_rows.cuh.
constexpr bool fits_chunks(const Shape& s) {
  return vector_conv(s) && s.state_size >= 8 && s.state_size <= kMaxChunkState && s.head_dim >= 8 &&
         s.head_dim <= kMaxChunkHeadDim;
}
constexpr bool is_resident(ElasticMamba2Kernel kernel) {
  return kernel == ELASTIC_MAMBA2_CHUNK_PREFILL_RESIDENT || kernel == ELASTIC_MAMBA2_CHUNK_PREFILL_GATED_RESIDENT;
}
constexpr bool is_gated(ElasticMamba2Kernel kernel) {
  return kernel == ELASTIC_MAMBA2_CHUNK_PREFILL_GATED || kernel == ELASTIC_MAMBA2_CHUNK_PREFILL_GATED_RESIDENT;
}
// Channels of a head that a block of chunk_prefill has: of the instances that which leaves the fewest unused.
constexpr int chunk_width(int head_dim) {
  constexpr int kWidths[] = {48, 64, 80};
  int best = 0, least = INT32_MAX;
  for (const int width : kWidths) {
    const int padded = (head_dim + width - 1) / width * width;
    if (padded < least) best = width, least = padded;
  }
  return best;
}
constexpr bool vector_norm(const Shape& s) {
  return group_channels(s) % 4 == 0 && conv_channels(s) % 4 == 0 && projected_width(s) % 4 == 0;
}

}  // namespace elastic::mamba2
