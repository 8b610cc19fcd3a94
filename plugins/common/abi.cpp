#include "abi.h"

// All of these come from CMakeLists.txt; the defaults are those of a build without it (host tests).
#ifndef ELASTIC_LIBRARY_VERSION
#define ELASTIC_LIBRARY_VERSION "0"
#endif
#ifndef ELASTIC_TENSORRT_ABI
#define ELASTIC_TENSORRT_ABI "none"
#endif
#ifndef ELASTIC_CUDA_VERSION
#define ELASTIC_CUDA_VERSION "none"
#endif
#ifndef ELASTIC_ARCHITECTURES
#define ELASTIC_ARCHITECTURES "host"
#endif

#define ELASTIC_ABI_JSON                     \
  "{\"library\": \"" ELASTIC_LIBRARY_VERSION \
  "\", \"ops\": {\"Mamba2Mixer\": \"1\", \"CachedAttention\": \"1\"}, "  \
  "\"tensorrt\": \"" ELASTIC_TENSORRT_ABI    \
  "\", "                                     \
  "\"cuda\": \"" ELASTIC_CUDA_VERSION        \
  "\", "                                     \
  "\"architectures\": \"" ELASTIC_ARCHITECTURES "\"}"

#if defined(__ELF__)
__attribute__((section(".elastic_abi"), used))
#endif
static const char elastic_abi_text[] = "elastic-plugins-abi/1 " ELASTIC_ABI_JSON;

extern "C" const char* elastic_plugins_abi(void) { return elastic_abi_text + sizeof(elastic::kAbiMarker) - 1; }
