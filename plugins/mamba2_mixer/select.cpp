#include "select.h"

#include <cstdint>

namespace elastic::mamba2 {
namespace {

constexpr int kMaxState = 256, kMaxHeadDim = 256, kMaxTaps = 8;
constexpr int kMaxBatch = 65535;         // a grid axis
constexpr int kMaxTokens = 65535 * 16;   // a grid axis of 16-token tiles
constexpr int kMaxElements = INT32_MAX;  // of one row: kernels index inside a row with int

constexpr int kDecodeRows = 16;  // rows of a decode block's pass; decode_step.cuh holds the same number

// Blocks a multiprocessor should get before blocks are made larger: two waves or more of resident blocks, so
// that the tail of the last wave stays short. An estimate: to be measured.
constexpr int64_t kBlocksPerMultiprocessor = 16;

std::string unlike(const std::string& subject, const std::string& expected, int64_t found) {
  return "Mamba2Mixer: " + subject + ": expected " + expected + ", found " + std::to_string(found);
}

std::string check_range(const char* subject, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return "";
  return unlike(subject, std::to_string(low) + " to " + std::to_string(high), value);
}

// Passes of a block over a head's rows. The fewest blocks that still give every multiprocessor enough of
// them: fewer, larger blocks compute the convolution of B and C less often. A head's rows are shared out
// evenly.
int decode_passes(const Shape& shape, int multiprocessors) {
  const int most = (shape.head_dim + kDecodeRows - 1) / kDecodeRows;
  const int64_t heads = static_cast<int64_t>(shape.batch) * shape.heads;
  for (int tiles = 1; tiles < most; ++tiles)
    if (heads * tiles >= kBlocksPerMultiprocessor * multiprocessors) return (most + tiles - 1) / tiles;
  return 1;
}

void plan_decode(const Shape& shape, int multiprocessors, ElasticMamba2Plan* plan) {
  plan->kernel = ELASTIC_MAMBA2_DECODE_STEP;
  plan->passes = decode_passes(shape, multiprocessors);
  plan->vector_state = shape.state_size % 4 == 0;
  plan->counters = shape.batch * shape.groups;
  plan->workspace_bytes = sizeof(float) * static_cast<uint64_t>(shape.batch) * inner_channels(shape);
}

void plan_scan(const Shape& shape, ElasticMamba2Plan* plan) {
  plan->kernel = ELASTIC_MAMBA2_SCAN_PREFILL;
  plan->vector_scan = shape.state_size % 4 == 0 && shape.head_dim % 4 == 0;
  // Every row of `projected` must begin at a multiple of four elements, and so must x|B|C inside it.
  plan->vector_conv = plan->vector_scan && shape.heads % 4 == 0 && shape.conv_width <= 4;
  const uint64_t tokens = static_cast<uint64_t>(shape.batch) * shape.tokens;
  const uint64_t steps = (tokens * shape.heads + 3) / 4 * 4;
  plan->workspace_bytes = sizeof(float) * (steps + tokens * conv_channels(shape));
}

}  // namespace

const char* kernel_name(int kernel) {
  if (kernel == ELASTIC_MAMBA2_DECODE_STEP) return "decode_step";
  if (kernel == ELASTIC_MAMBA2_SCAN_PREFILL) return "scan_prefill";
  return "unknown";
}

std::string check_shape(const Shape& s) {
  std::string fault;
  const auto range = [&](const char* subject, int64_t value, int64_t low, int64_t high) {
    if (fault.empty()) fault = check_range(subject, value, low, high);
  };
  range("batch", s.batch, 1, kMaxBatch);
  range("tokens", s.tokens, 1, kMaxTokens);
  range("heads", s.heads, 1, INT32_MAX);
  range("head_dim", s.head_dim, 1, kMaxHeadDim);
  range("n_groups", s.groups, 1, INT32_MAX);
  range("state_size", s.state_size, 1, kMaxState);
  range("convolution width", s.conv_width, 2, kMaxTaps);
  if (!fault.empty()) return fault;
  if (s.heads % s.groups != 0)
    return unlike("heads", "a multiple of the " + std::to_string(s.groups) + " groups", s.heads);
  const int64_t inner = static_cast<int64_t>(s.heads) * s.head_dim;
  const int64_t row = 2 * inner + 2 * static_cast<int64_t>(s.groups) * s.state_size + s.heads;
  range("elements of one token", row * kMaxTaps, 1, kMaxElements);
  range("elements of the counters", static_cast<int64_t>(s.batch) * s.groups, 1, kMaxElements);
  return fault;
}

std::string make_plan(const Shape& shape, const std::string& kernel, int multiprocessors,
                      ElasticMamba2Plan* plan) {
  std::string fault = check_shape(shape);
  if (!fault.empty()) return fault;
  if (multiprocessors < 1) return unlike("multiprocessors", "1 or more", multiprocessors);
  *plan = {};
  plan->wide_state = shape.state_size > 128;
  const bool automatic = kernel == "auto";
  if (kernel == "decode_step" && shape.tokens != 1)
    return unlike("kernel decode_step: tokens", "1", shape.tokens);
  if (kernel == "decode_step" || (automatic && shape.tokens == 1)) {
    plan_decode(shape, multiprocessors, plan);
  } else if (kernel == "scan_prefill" || automatic) {
    plan_scan(shape, plan);
  } else {
    return "Mamba2Mixer: kernel: expected auto, decode_step or scan_prefill, found " + kernel;
  }
  return "";
}

}  // namespace elastic::mamba2
