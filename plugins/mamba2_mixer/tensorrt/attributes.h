// The op's attributes as TensorRT carries them: contract.json's `attributes`, in its order.
#pragma once

#include <cstdint>
#include <limits>

#include "../../common/tensorrt/attributes.h"
#include "../limits.h"

namespace elastic::mamba2::trt {

constexpr char kName[] = "Mamba2Mixer";

struct Attributes {
  int32_t n_groups = 0;
  int32_t head_dim = 0;
  int32_t state_size = 0;
  float epsilon = 0.f;
  float time_step_min = 0.f;
  float time_step_max = std::numeric_limits<float>::infinity();

  template <typename Self, typename Visit>
  static void each(Self& self, Visit visit) {
    visit("n_groups", self.n_groups, elastic::trt::AtMost{kMaxGroups});
    visit("head_dim", self.head_dim, elastic::trt::AtMost{kMaxHeadDim});
    visit("state_size", self.state_size, elastic::trt::AtMost{kMaxState});
    visit("epsilon", self.epsilon, elastic::trt::Given{});
    visit("time_step_min", self.time_step_min, elastic::trt::Optional{});
    visit("time_step_max", self.time_step_max, elastic::trt::Optional{});
  }
};

using AttributeFields = elastic::trt::AttributeFields<Attributes>;

// Throws Refusal about attributes that make no sense, alone or beside each other.
void check_attributes(const Attributes& attributes);

}  // namespace elastic::mamba2::trt
