#include "attributes.h"

#include <string>

namespace elastic::mamba2::trt {

using elastic::trt::Refusal;

void check_attributes(const Attributes& a) {
  if (a.epsilon < 0) throw Refusal(kName, "attribute epsilon", "0 or more", std::to_string(a.epsilon));
  if (a.time_step_min > a.time_step_max)
    throw Refusal(kName, "attribute time_step_min", "at most time_step_max " + std::to_string(a.time_step_max),
                  std::to_string(a.time_step_min));
}

}  // namespace elastic::mamba2::trt
