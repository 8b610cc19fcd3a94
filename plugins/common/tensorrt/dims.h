// Dimensions of an op's tensors, checked: every function throws Refusal, in the words of `op`.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "../elastic_plugins.h"
#include "refusal.h"

namespace elastic::trt {

void expect_dims(const char* op, const char* tensor, const nvinfer1::Dims& found, const std::vector<int64_t>& wanted);
void expect_rank(const char* op, const char* tensor, const nvinfer1::Dims& found, int32_t rank);

// A size as the kernels take it.
int32_t narrow(const char* op, const char* what, int64_t value);

// The type code of the C interface, of a type that it knows.
ElasticDtype element_type(const char* op, nvinfer1::DataType type);

// False while a dimension has no maximum yet.
bool is_known(const nvinfer1::Dims& dims);

}  // namespace elastic::trt
