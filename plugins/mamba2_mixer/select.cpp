#include "select.h"

#include <cstdint>

namespace elastic::mamba2 {
namespace {

constexpr int64_t kMaxElements = INT32_MAX;     // of one row: kernels index inside a row with int
constexpr int64_t kMaxFirstAxis = INT32_MAX;    // of a grid
constexpr int64_t kMaxBytes = INT64_MAX;        // of a call's tensors
constexpr int64_t kMaxBytesPerElement = 4 * 4;  // float32, and a factor for what is more than `projected`

// Blocks a multiprocessor should get before blocks are made larger: two waves or more of resident blocks, so that the
// tail of the last wave stays short. An estimate: to be measured.
constexpr int64_t kBlocksPerMultiprocessor = 16;

std::string unlike(const std::string& subject, const std::string& expected, int64_t found) {
  return "Mamba2Mixer: " + subject + ": expected " + expected + ", found " + std::to_string(found);
}

std::string check_range(const char* subject, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return "";
  return unlike(subject, std::to_string(low) + " to " + std::to_string(high), value);
}

constexpr int kChunkCapability = 8;     // the first with tensor cores for these operands and copies past the registers
constexpr int kResidentCapability = 9;  // whose cards have shown that it is quicker: README.md, "Measured"

bool runs_chunks(const Call& call) { return call.capability >= kChunkCapability && fits_chunks(call.shape); }

ElasticMamba2Kernel by_chunks(const Call& call) {
  const bool resident = call.capability == kResidentCapability;
  if (call.activation == ELASTIC_BFLOAT16)
    return resident ? ELASTIC_MAMBA2_CHUNK_PREFILL_GATED_RESIDENT : ELASTIC_MAMBA2_CHUNK_PREFILL_GATED;
  return resident ? ELASTIC_MAMBA2_CHUNK_PREFILL_RESIDENT : ELASTIC_MAMBA2_CHUNK_PREFILL;
}

std::string why_not_decode(const Shape& s) {
  return "Mamba2Mixer: kernel decode_step: expected 1 token, a convolution of width 4, and a state size and channels "
         "of a group that are multiples of 4, found " +
         std::to_string(s.tokens) + ", " + std::to_string(s.conv_width) + ", " + std::to_string(s.state_size) +
         " and " + std::to_string(group_channels(s));
}

std::string name_of_chunks(ElasticMamba2Kernel kernel) {
  return std::string("kernel chunk_prefill") + (is_gated(kernel) ? "_gated" : "") +
         (is_resident(kernel) ? "_resident" : "");
}

// `kernel`: chunk_prefill or one of its variants.
std::string why_not_chunks(ElasticMamba2Kernel kernel, const Call& call) {
  const Shape& s = call.shape;
  if (is_gated(kernel) && call.activation != ELASTIC_BFLOAT16)
    return unlike("activation type of " + name_of_chunks(kernel), "2 (bfloat16)", call.activation);
  if (runs_chunks(call)) return "";
  return "Mamba2Mixer: " + name_of_chunks(kernel) +
         ": expected compute capability 8 or later, a convolution of width 4, heads in a multiple of 4, head and state "
         "sizes of 8 to 128 in multiples of 4, found " +
         std::to_string(call.capability) + ", " + std::to_string(s.conv_width) + ", " + std::to_string(s.heads) + ", " +
         std::to_string(s.head_dim) + " and " + std::to_string(s.state_size);
}

}  // namespace

std::string check_shape(const Shape& s) {
  std::string fault;
  const auto range = [&](const char* subject, int64_t value, int64_t low, int64_t high) {
    if (fault.empty()) fault = check_range(subject, value, low, high);
  };
  range("batch", s.batch, 1, kMaxBatch);
  range("tokens", s.tokens, 1, kMaxTokens);
  range("heads", s.heads, 1, INT32_MAX);
  range("head_dim", s.head_dim, 1, kMaxHeadDim);
  range("n_groups", s.groups, 1, kMaxGroups);
  range("state_size", s.state_size, 1, kMaxState);
  range("convolution width", s.conv_width, kMinTaps, kMaxTaps);
  if (!fault.empty()) return fault;
  if (s.heads % s.groups != 0)
    return unlike("heads", "a multiple of the " + std::to_string(s.groups) + " groups", s.heads);
  const int64_t inner = static_cast<int64_t>(s.heads) * s.head_dim;
  const int64_t row = 2 * inner + 2 * static_cast<int64_t>(s.groups) * s.state_size + s.heads;
  range("elements of one token", row * kMaxTaps, 1, kMaxElements);
  range("groups of a row's tokens", static_cast<int64_t>(s.tokens) * s.groups, 1, kMaxFirstAxis);
  range("elements of the counters", static_cast<int64_t>(s.batch) * s.groups, 1, kMaxElements);
  range("tokens of all rows", static_cast<int64_t>(s.batch) * s.tokens, 1, kMaxBytes / kMaxBytesPerElement / row);
  return fault;
}

std::string choose_kernel(const Call& call, int32_t asked, ElasticMamba2Kernel* chosen) {
  const Shape& shape = call.shape;
  switch (asked) {
    case ELASTIC_MAMBA2_AUTO: {
      const bool chunks = runs_chunks(call) && shape.tokens >= kMinChunkTokens && call.activation != ELASTIC_FLOAT32;
      *chosen = decodes(shape) ? ELASTIC_MAMBA2_DECODE_STEP : (chunks ? by_chunks(call) : ELASTIC_MAMBA2_SCAN_PREFILL);
      return "";
    }
    case ELASTIC_MAMBA2_DECODE_STEP:
      *chosen = ELASTIC_MAMBA2_DECODE_STEP;
      return decodes(shape) ? "" : why_not_decode(shape);
    case ELASTIC_MAMBA2_SCAN_PREFILL:
      *chosen = ELASTIC_MAMBA2_SCAN_PREFILL;
      return "";
    case ELASTIC_MAMBA2_CHUNK_PREFILL:
    case ELASTIC_MAMBA2_CHUNK_PREFILL_GATED:
    case ELASTIC_MAMBA2_CHUNK_PREFILL_RESIDENT:
    case ELASTIC_MAMBA2_CHUNK_PREFILL_GATED_RESIDENT:
      *chosen = static_cast<ElasticMamba2Kernel>(asked);
      return why_not_chunks(*chosen, call);
    default:
      return unlike("kernel",
                    "0 (auto), 1 (decode_step), 2 (scan_prefill), 3 (chunk_prefill), 4 (chunk_prefill_gated), "
                    "5 (chunk_prefill_resident) or 6 (chunk_prefill_gated_resident)",
                    asked);
  }
}

ElasticMamba2Requirements requirements_of(const Shape& s) {
  const auto floats = static_cast<uint64_t>(workspace_floats(s.batch, s.tokens, s.heads, conv_channels(s)));
  return {sizeof(float) * floats, decodes(s) ? s.batch * s.groups : 0, 0};
}

// The fewest blocks that still give every multiprocessor enough of them: fewer, larger blocks compute the convolution
// of B and C less often. A head's rows are shared out evenly.
int decode_passes(const Shape& shape, int multiprocessors) {
  const int most = (shape.head_dim + kDecodeRows - 1) / kDecodeRows;
  const int64_t heads = static_cast<int64_t>(shape.batch) * shape.heads;
  for (int tiles = 1; tiles < most; ++tiles)
    if (heads * tiles >= kBlocksPerMultiprocessor * multiprocessors) return (most + tiles - 1) / tiles;
  return 1;
}

}  // namespace elastic::mamba2
