// The part of PyTorch's header that causal-conv1d needs.
#pragma once
#include <cuda_fp16.h>
namespace at {
using Half = __half;
}
