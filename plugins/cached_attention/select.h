// Which kernel runs for which shape, how it is cut into blocks, and how much memory it needs: pure host functions, no
// CUDA.
#pragma once

#include <string>

#include "elastic_attention.h"
#include "limits.h"

namespace elastic::attention {

// How a call is cut into blocks: the rows of each key and value head (a row: one query head of one token) in tiles, and
// for each tile the cache rows among `splits` blocks.
struct Cut {
  int tile_rows;
  int tiles;
  int splits;
};

// Empty, or what is wrong with the shape: subject, expected, found.
std::string check_shape(const Shape& shape);

// Empty, or what is wrong with the factor of the scores.
std::string check_scale(float scale);

// Empty, or why a card of that compute capability cannot run the call: sm_75 has no products of bfloat16, and not the
// shared memory of large heads.
std::string check_capability(int major, const Args& args);

// Empty and *chosen set, never to ELASTIC_ATTENTION_AUTO; or why there is no such kernel.
std::string choose_kernel(const Shape& shape, int32_t asked, ElasticAttentionKernel* chosen);

// For a checked shape: as many blocks as fill the card.
Cut choose_cut(const Shape& shape, ElasticAttentionKernel kernel, int multiprocessors);

// Enough for every kernel and card.
ElasticAttentionRequirements requirements_of(const Shape& shape);

}  // namespace elastic::attention
