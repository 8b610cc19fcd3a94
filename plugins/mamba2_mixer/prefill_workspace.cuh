// What the kernels of a prefill hand to each other, in float32:
//   channels [B, T, dc]  x | B | C after convolution and SiLU; the scan puts y where x was
//   steps    [B, H, T]   dt
#pragma once

#include "../common/device.cuh"
#include "params.h"

namespace elastic::mamba2 {

struct PrefillWorkspace {
  float* channels;
  float* steps;

  ELASTIC_D float* token(const Shape& shape, int b, int t) const {
    return channels + (static_cast<int64_t>(b) * shape.tokens + t) * conv_channels(shape);
  }
  ELASTIC_D float* steps_of(const Shape& shape, int b, int head) const {
    return steps + (static_cast<int64_t>(b) * shape.heads + head) * shape.tokens;
  }
};

constexpr int64_t prefill_channel_count(const Shape& shape) {
  return static_cast<int64_t>(shape.batch) * shape.tokens * conv_channels(shape);
}
constexpr int64_t prefill_step_count(const Shape& shape) {
  return static_cast<int64_t>(shape.batch) * shape.heads * shape.tokens;
}

// The steps come first: rounded up, so that the channels keep the alignment of the workspace.
constexpr int64_t prefill_channels_at(const Shape& shape) { return (prefill_step_count(shape) + 3) / 4 * 4; }

}  // namespace elastic::mamba2
