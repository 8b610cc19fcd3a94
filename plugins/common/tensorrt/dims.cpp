#include "dims.h"

#include <algorithm>

namespace elastic::trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;

std::string text(const Dims& dims) {
  std::string out = "[";
  for (int32_t i = 0; i < dims.nbDims; ++i) out += (i ? ", " : "") + std::to_string(dims.d[i]);
  return out + "]";
}

}  // namespace

void expect_dims(const char* op, const char* tensor, const Dims& found, const std::vector<int64_t>& wanted) {
  Dims dims{static_cast<int32_t>(wanted.size()), {}};
  std::copy(wanted.begin(), wanted.end(), dims.d);
  if (found.nbDims != dims.nbDims || !std::equal(wanted.begin(), wanted.end(), found.d))
    throw Refusal(op, std::string("shape of ") + tensor, text(dims), text(found));
}

void expect_rank(const char* op, const char* tensor, const Dims& found, int32_t rank) {
  if (found.nbDims != rank)
    throw Refusal(op, std::string("rank of ") + tensor, std::to_string(rank), text(found));
}

int32_t narrow(const char* op, const char* what, int64_t value) {
  if (value < 0 || value > INT32_MAX) throw Refusal(op, what, "0 to 2147483647", std::to_string(value));
  return static_cast<int32_t>(value);
}

ElasticDtype element_type(const char* op, DataType type) {
  if (type == DataType::kFLOAT) return ELASTIC_FLOAT32;
  if (type == DataType::kHALF) return ELASTIC_FLOAT16;
  if (type == DataType::kBF16) return ELASTIC_BFLOAT16;
  throw Refusal(op, "tensor type", "float32, float16 or bfloat16", "type " + std::to_string(static_cast<int>(type)));
}

bool is_known(const Dims& dims) {
  return std::all_of(dims.d, dims.d + std::max(dims.nbDims, 0), [](int64_t size) { return size >= 0; });
}

}  // namespace elastic::trt
