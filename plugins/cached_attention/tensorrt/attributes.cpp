#include "attributes.h"

#include <stdexcept>
#include <string>

#include "../select.h"

namespace elastic::attention::trt {

void check_attributes(const Attributes& a) {
  std::string fault = check_scale(a.scale);
  if (fault.empty()) fault = check_shape({1, 1, a.num_heads, a.num_key_value_heads, a.head_dim, 1});
  if (!fault.empty()) throw std::runtime_error(fault);
}

}  // namespace elastic::attention::trt
