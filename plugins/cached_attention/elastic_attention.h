/* The C interface of elastic::CachedAttention in libelastic_plugins: size the buffers of a call, put it on a stream. No
 * TensorRT, no torch. Functions return 0, or an ElasticStatus and leave a text in elastic_last_error(). */
#ifndef ELASTIC_ATTENTION_H
#define ELASTIC_ATTENTION_H

#include "params.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ElasticAttentionKernel {
  ELASTIC_ATTENTION_AUTO = 0,   /* decode where the query heads of all tokens fill few rows, else prefill */
  ELASTIC_ATTENTION_DECODE = 1, /* tiles of 16 rows (a row: one query head of one token), four warps over the caches */
  ELASTIC_ATTENTION_PREFILL = 2 /* tiles of 64 rows, 16 a warp */
} ElasticAttentionKernel;

/* What a call of a shape needs, whichever kernel runs it. */
typedef struct ElasticAttentionRequirements {
  uint64_t workspace_bytes; /* of Args.workspace */
} ElasticAttentionRequirements;

/* A pure function of the shape; needs no GPU. */
ELASTIC_API int32_t elastic_attention_requirements(const ElasticAttentionShape* shape,
                                                   ElasticAttentionRequirements* requirements);

/* kernel: an ElasticAttentionKernel, all of which run every shape. stream: a cudaStream_t. */
ELASTIC_API int32_t elastic_attention_enqueue(const ElasticAttentionArgs* args, int32_t kernel, void* stream);

#ifdef __cplusplus
}
#endif

#endif
