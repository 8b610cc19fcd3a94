/* Plain C description of one call of the Mamba-2 mixer: what contract.json says, as a struct.
 * Included by kernels, launchers, the TensorRT glue and, field by field, by ctypes (library.py). */
#ifndef ELASTIC_MAMBA2_PARAMS_H
#define ELASTIC_MAMBA2_PARAMS_H

#include "../common/elastic_plugins.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ElasticMamba2Shape {
  int32_t batch;      /* B */
  int32_t tokens;     /* T of this call */
  int32_t heads;      /* H */
  int32_t head_dim;   /* P */
  int32_t groups;     /* G */
  int32_t state_size; /* N */
  int32_t conv_width; /* K */
} ElasticMamba2Shape;

/* Shapes as in contract.json; T is the type of the activations, W that of A_log, D and dt_bias.
 * Device pointers, all but the last three of the caller's tensors. */
typedef struct ElasticMamba2Args {
  ElasticMamba2Shape shape;
  int32_t activation; /* ElasticDtype T */
  int32_t head_param; /* ElasticDtype W: ELASTIC_FLOAT32 or T */
  float epsilon;
  float time_step_min;
  float time_step_max;
  int32_t multiprocessors; /* of the device the call runs on; 0: asked at every call */

  const void* projected;
  const void* conv_weight;
  const void* conv_bias;
  const void* a_log;
  const void* d;
  const void* dt_bias;
  const void* norm_weight;
  const int64_t* length; /* values outside 0..T are read as the nearer end */
  const void* conv_state;
  const float* ssm_state;

  void* y;
  void* conv_state_out; /* not conv_state: the old one is read while the new one is written */
  float* ssm_state_out; /* may be ssm_state: every element has one reader and writer */

  float* workspace;   /* requirements.workspace_bytes, any content, 16-byte aligned */
  uint32_t* counters; /* requirements.counters values, zero before the first call; each call leaves zeros */
} ElasticMamba2Args;

#ifdef __cplusplus
}

namespace elastic::mamba2 {
#if defined(__CUDACC__)
#define ELASTIC_SHAPE __host__ __device__ constexpr
#else
#define ELASTIC_SHAPE constexpr
#endif
using Shape = ElasticMamba2Shape;
using Args = ElasticMamba2Args;

ELASTIC_SHAPE int inner_channels(const Shape& s) { return s.heads * s.head_dim; }
ELASTIC_SHAPE int conv_channels(const Shape& s) { return inner_channels(s) + 2 * s.groups * s.state_size; }
ELASTIC_SHAPE int projected_width(const Shape& s) { return inner_channels(s) + conv_channels(s) + s.heads; }
ELASTIC_SHAPE int heads_per_group(const Shape& s) { return s.heads / s.groups; }
ELASTIC_SHAPE int group_channels(const Shape& s) { return inner_channels(s) / s.groups; }
}  // namespace elastic::mamba2
#endif

#endif
