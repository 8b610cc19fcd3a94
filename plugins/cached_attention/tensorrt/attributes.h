// The op's attributes as TensorRT carries them: contract.json's `attributes`, in its order.
#pragma once

#include <cstdint>

#include "../../common/tensorrt/attributes.h"
#include "../limits.h"

namespace elastic::attention::trt {

constexpr char kName[] = "CachedAttention";

struct Attributes {
  int32_t num_heads = 0;
  int32_t num_key_value_heads = 0;
  int32_t head_dim = 0;
  float scale = 0.f;

  template <typename Self, typename Visit>
  static void each(Self& self, Visit visit) {
    visit("num_heads", self.num_heads, elastic::trt::AtMost{INT32_MAX});
    visit("num_key_value_heads", self.num_key_value_heads, elastic::trt::AtMost{kMaxKeyValueHeads});
    visit("head_dim", self.head_dim, elastic::trt::AtMost{kMaxHeadDim});
    visit("scale", self.scale, elastic::trt::Given{});
  }
};

using AttributeFields = elastic::trt::AttributeFields<Attributes>;

// Throws std::runtime_error about attributes that no shape goes with.
void check_attributes(const Attributes& attributes);

}  // namespace elastic::attention::trt
