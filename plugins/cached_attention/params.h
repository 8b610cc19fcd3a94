/* Plain C description of one call of attention over caches: what contract.json says, as a struct.
 * Included by kernels, launchers, the TensorRT glue and, field by field, by ctypes (library.py). */
#ifndef ELASTIC_ATTENTION_PARAMS_H
#define ELASTIC_ATTENTION_PARAMS_H

#include "../common/elastic_plugins.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ElasticAttentionShape {
  int32_t batch;           /* B */
  int32_t tokens;          /* T of this call */
  int32_t heads;           /* H */
  int32_t key_value_heads; /* G */
  int32_t head_dim;        /* D */
  int32_t context;         /* S, rows of the caches */
} ElasticAttentionShape;

/* Shapes as in contract.json; device pointers, all but the last of the caller's tensors. */
typedef struct ElasticAttentionArgs {
  ElasticAttentionShape shape;
  int32_t dtype; /* ElasticDtype of all but position: ELASTIC_FLOAT16 or ELASTIC_BFLOAT16 */
  float scale;
  int32_t multiprocessors; /* of the device the call runs on; 0: asked at every call */
  int32_t reserved;

  const void* query;
  const void* key;
  const void* value;
  const int64_t* position; /* values outside 0..S-T: no row outside the caches is touched, y is unspecified */

  void* key_cache; /* in place: read and written */
  void* value_cache;
  void* y;

  float* workspace; /* requirements.workspace_bytes, any content, 16-byte aligned */
} ElasticAttentionArgs;

#ifdef __cplusplus
}

namespace elastic::attention {
#if defined(__CUDACC__)
#define ELASTIC_ATTENTION_SHAPE __host__ __device__ constexpr
#else
#define ELASTIC_ATTENTION_SHAPE constexpr
#endif
using Shape = ElasticAttentionShape;
using Args = ElasticAttentionArgs;

ELASTIC_ATTENTION_SHAPE int group_heads(const Shape& s) { return s.heads / s.key_value_heads; }
ELASTIC_ATTENTION_SHAPE int query_width(const Shape& s) { return s.heads * s.head_dim; }
ELASTIC_ATTENTION_SHAPE int key_width(const Shape& s) { return s.key_value_heads * s.head_dim; }
}  // namespace elastic::attention
#undef ELASTIC_ATTENTION_SHAPE
#endif

#endif
