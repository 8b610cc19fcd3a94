#include "tensors.h"

#include <vector>

#include "../select.h"

namespace elastic::mamba2::trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;

std::string text(const Dims& dims) {
  std::string out = "[";
  for (int32_t i = 0; i < dims.nbDims; ++i) out += (i ? ", " : "") + std::to_string(dims.d[i]);
  return out + "]";
}

void expect(int input, const Dims& found, const std::vector<int64_t>& wanted) {
  Dims dims{static_cast<int32_t>(wanted.size()), {}};
  bool same = found.nbDims == dims.nbDims;
  for (int32_t i = 0; i < dims.nbDims; ++i) {
    dims.d[i] = wanted[i];
    same = same && found.d[i] == wanted[i];
  }
  if (!same) throw Refusal(std::string("shape of ") + input_name(input), text(dims), text(found));
}

void expect_rank(int input, const Dims& found, int32_t rank) {
  if (found.nbDims != rank)
    throw Refusal(std::string("rank of ") + input_name(input), std::to_string(rank), text(found));
}

int32_t narrow(int64_t value, const char* what) {
  if (value < 0 || value > INT32_MAX) throw Refusal(what, "0 to 2147483647", std::to_string(value));
  return static_cast<int32_t>(value);
}

}  // namespace

bool allowed_type(int index, const DataType* types) {
  const DataType activation = types[kProjected], head = types[kALog];
  switch (index) {
    case kProjected:
      return activation == DataType::kFLOAT || activation == DataType::kHALF || activation == DataType::kBF16;
    case kALog:
      return head == DataType::kFLOAT || head == activation;
    case kD:
    case kDtBias:
      return types[index] == head;
    case kLength:
      return types[index] == DataType::kINT64;
    case kSsmState:
    case kInputs + kSsmStateOut:
      return types[index] == DataType::kFLOAT;
    default:
      return types[index] == activation;
  }
}

ElasticDtype element_type(DataType type) {
  if (type == DataType::kFLOAT) return ELASTIC_FLOAT32;
  if (type == DataType::kHALF) return ELASTIC_FLOAT16;
  if (type == DataType::kBF16) return ELASTIC_BFLOAT16;
  throw Refusal("tensor type", "float32, float16 or bfloat16", "type " + std::to_string(static_cast<int>(type)));
}

Shape read_shape(const Attributes& a, const Dims* in) {
  expect_rank(kProjected, in[kProjected], 3);
  expect_rank(kConvWeight, in[kConvWeight], 3);
  expect_rank(kALog, in[kALog], 1);
  Shape s = {};
  s.batch = narrow(in[kProjected].d[0], "batch");
  s.tokens = narrow(in[kProjected].d[1], "tokens");
  s.heads = narrow(in[kALog].d[0], "heads");
  s.head_dim = a.head_dim;
  s.groups = a.n_groups;
  s.state_size = a.state_size;
  s.conv_width = narrow(in[kConvWeight].d[2], "convolution width");
  if (const std::string fault = check_shape(s); !fault.empty()) throw std::runtime_error(fault);
  const int64_t channels = conv_channels(s), inner = inner_channels(s);
  expect(kProjected, in[kProjected], {s.batch, s.tokens, projected_width(s)});
  expect(kConvWeight, in[kConvWeight], {channels, 1, s.conv_width});
  expect(kConvBias, in[kConvBias], {channels});
  expect(kD, in[kD], {s.heads});
  expect(kDtBias, in[kDtBias], {s.heads});
  expect(kNormWeight, in[kNormWeight], {inner});
  expect(kLength, in[kLength], {s.batch});
  expect(kConvState, in[kConvState], {s.batch, s.conv_width - 1, channels});
  expect(kSsmState, in[kSsmState], {s.batch, s.heads, s.head_dim, s.state_size});
  return s;
}

}  // namespace elastic::mamba2::trt
