/* The C interface of elastic::Mamba2Mixer in libelastic_plugins: size the buffers of a call, put it on a stream. No
 * TensorRT, no torch. Functions return 0, or an ElasticStatus and leave a text in elastic_last_error(). */
#ifndef ELASTIC_MAMBA2_H
#define ELASTIC_MAMBA2_H

#include "params.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ElasticMamba2Kernel {
  ELASTIC_MAMBA2_AUTO = 0,         /* the quickest known of those that keep the contract's tolerance for the call */
  ELASTIC_MAMBA2_DECODE_STEP = 1,  /* one launch, T = 1; refused for shapes that it does not run (README.md) */
  ELASTIC_MAMBA2_SCAN_PREFILL = 2, /* three launches, any shape */
  ELASTIC_MAMBA2_CHUNK_PREFILL = 3, /* three launches, tensor cores of sm_80 and later; refused as decode_step is */
  ELASTIC_MAMBA2_CHUNK_PREFILL_GATED = 4, /* the same, the gate before the norm's rounding: bfloat16 only */
  ELASTIC_MAMBA2_CHUNK_PREFILL_RESIDENT = 5, /* as 3, the state in registers alone */
  ELASTIC_MAMBA2_CHUNK_PREFILL_GATED_RESIDENT = 6 /* as 4, likewise */
} ElasticMamba2Kernel;

/* What a call of a shape needs, whichever kernel runs it. */
typedef struct ElasticMamba2Requirements {
  uint64_t workspace_bytes; /* of Args.workspace; grows with B and with T */
  int32_t counters;         /* of Args.counters; 0: none */
  int32_t reserved;
} ElasticMamba2Requirements;

/* A pure function of the shape; needs no GPU. */
ELASTIC_API int32_t elastic_mamba2_requirements(const ElasticMamba2Shape* shape,
                                                ElasticMamba2Requirements* requirements);

/* kernel: an ElasticMamba2Kernel. stream: a cudaStream_t. */
ELASTIC_API int32_t elastic_mamba2_enqueue(const ElasticMamba2Args* args, int32_t kernel, void* stream);

#ifdef __cplusplus
}
#endif

#endif
