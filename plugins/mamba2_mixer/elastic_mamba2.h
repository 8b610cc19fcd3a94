/* The C interface of libelastic_plugins: plan a call, size its buffers, put it on a stream. No TensorRT, no
 * torch. Functions return 0, or an ElasticStatus and leave a text in elastic_last_error(). */
#ifndef ELASTIC_MAMBA2_H
#define ELASTIC_MAMBA2_H

#include "params.h"

#if defined(_WIN32)
#define ELASTIC_API __declspec(dllexport)
#else
#define ELASTIC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ElasticStatus {
  ELASTIC_OK = 0,
  ELASTIC_REFUSED = 1,      /* a shape, type, pointer or name; nothing was launched */
  ELASTIC_LAUNCH_FAILED = 2 /* CUDA's own error, with the kernel's name */
} ElasticStatus;

typedef enum ElasticMamba2Kernel {
  ELASTIC_MAMBA2_DECODE_STEP = 1, /* one launch, T = 1 */
  ELASTIC_MAMBA2_SCAN_PREFILL = 2 /* three launches, any T */
} ElasticMamba2Kernel;

/* What runs for a shape, and what it needs: a pure function of the arguments of elastic_mamba2_plan. */
typedef struct ElasticMamba2Plan {
  int32_t kernel;       /* ElasticMamba2Kernel */
  int32_t passes;       /* decode: how often a block takes up 16 rows of a head */
  int32_t vector_state; /* decode: 16-byte accesses to the state */
  int32_t vector_conv;  /* prefill: four channels a thread */
  int32_t vector_scan;  /* prefill: 16-byte copies to shared memory */
  int32_t wide_state;   /* N > 128 */
  int32_t counters;     /* of Args.counters */
  int32_t reserved;
  uint64_t workspace_bytes; /* of Args.workspace */
} ElasticMamba2Plan;

/* kernel: "auto", or the name of the one to be used or refused ("decode_step", "scan_prefill").
 * multiprocessors: of the device the call will run on; 0 asks the current device. */
ELASTIC_API int32_t elastic_mamba2_plan(const ElasticMamba2Shape* shape, const char* kernel,
                                        int32_t multiprocessors, ElasticMamba2Plan* plan);

/* stream: a cudaStream_t. The plan is one that elastic_mamba2_plan made for args->shape. */
ELASTIC_API int32_t elastic_mamba2_enqueue(const ElasticMamba2Args* args, const ElasticMamba2Plan* plan,
                                           void* stream);

/* The text of this thread's last failure: what, expected, found. */
ELASTIC_API const char* elastic_last_error(void);

/* Versions and build flags as JSON; the same bytes can be read from the file without loading it
 * (common/abi.h). */
ELASTIC_API const char* elastic_plugins_abi(void);

#ifdef __cplusplus
}
#endif

#endif
