#include "tensors.h"

#include <stdexcept>
#include <vector>

#include "../../common/tensorrt/dims.h"
#include "../select.h"

namespace elastic::attention::trt {

using nvinfer1::DataType;
using nvinfer1::Dims;

bool allowed_type(int index, const DataType* types) {
  switch (index) {
    case kQuery:
      return types[kQuery] == DataType::kHALF || types[kQuery] == DataType::kBF16;
    case kPosition:
      return types[kPosition] == DataType::kINT64;
    default:
      return types[index] == types[kQuery];
  }
}

Shape read_shape(const Attributes& a, const Dims* in) {
  const auto expect = [&](int input, const std::vector<int64_t>& wanted) {
    elastic::trt::expect_dims(kName, input_name(input), in[input], wanted);
  };
  elastic::trt::expect_rank(kName, input_name(kQuery), in[kQuery], 3);
  elastic::trt::expect_rank(kName, input_name(kKeyCache), in[kKeyCache], 4);
  Shape s = {};
  s.batch = elastic::trt::narrow(kName, "batch", in[kQuery].d[0]);
  s.tokens = elastic::trt::narrow(kName, "tokens", in[kQuery].d[1]);
  s.heads = a.num_heads;
  s.key_value_heads = a.num_key_value_heads;
  s.head_dim = a.head_dim;
  s.context = elastic::trt::narrow(kName, "rows of the caches", in[kKeyCache].d[2]);
  if (const std::string fault = check_shape(s); !fault.empty()) throw std::runtime_error(fault);
  const std::vector<int64_t> cache = {s.batch, s.key_value_heads, s.context, s.head_dim};
  expect(kQuery, {s.batch, s.tokens, query_width(s)});
  expect(kKey, {s.batch, s.tokens, key_width(s)});
  expect(kValue, {s.batch, s.tokens, key_width(s)});
  expect(kKeyCache, cache);
  expect(kValueCache, cache);
  expect(kPosition, {s.batch});
  return s;
}

}  // namespace elastic::attention::trt
