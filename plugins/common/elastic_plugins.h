/* What the C interfaces of all ops of libelastic_plugins share. */
#ifndef ELASTIC_PLUGINS_H
#define ELASTIC_PLUGINS_H

#include <stdint.h>

#if defined(_WIN32)
#define ELASTIC_API __declspec(dllexport)
#else
#define ELASTIC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ElasticDtype { ELASTIC_FLOAT32 = 0, ELASTIC_FLOAT16 = 1, ELASTIC_BFLOAT16 = 2 } ElasticDtype;

typedef enum ElasticStatus {
  ELASTIC_OK = 0,
  ELASTIC_REFUSED = 1,      /* a shape, type, pointer or name; nothing was launched */
  ELASTIC_LAUNCH_FAILED = 2 /* CUDA's own error, with the kernel's name */
} ElasticStatus;

/* The text of this thread's last failure: what, expected, found. */
ELASTIC_API const char* elastic_last_error(void);

/* Versions and build flags as JSON; the same bytes can be read from the file without loading it
 * (common/abi.h). */
ELASTIC_API const char* elastic_plugins_abi(void);

#ifdef __cplusplus
}
#endif

#endif
