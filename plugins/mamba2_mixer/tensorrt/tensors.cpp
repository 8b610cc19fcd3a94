#include "tensors.h"

#include <vector>

#include "../../common/tensorrt/dims.h"
#include "../select.h"

namespace elastic::mamba2::trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;

void expect(int input, const Dims& found, const std::vector<int64_t>& wanted) {
  elastic::trt::expect_dims(kName, input_name(input), found, wanted);
}

void expect_rank(int input, const Dims& found, int32_t rank) {
  elastic::trt::expect_rank(kName, input_name(input), found, rank);
}

int32_t narrow(int64_t value, const char* what) { return elastic::trt::narrow(kName, what, value); }

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
