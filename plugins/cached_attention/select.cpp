#include "select.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace elastic::attention {
namespace {

constexpr int64_t kMaxElements = INT32_MAX;   // of one sequence's query: kernels index inside it with int
constexpr int64_t kMaxBytes = INT64_MAX;      // of a cache
constexpr int64_t kBytesPerElement = 2;
constexpr int kTuring = 7, kAmpere = 8;  // compute capabilities; there is no machine code for 7.0
constexpr int kMaxTuringHeadDim = 128;   // 64 KiB of shared memory a block

// Blocks that every card since sm_80 has room for on a multiprocessor at the same time, at a head size of 128.
constexpr int64_t kBlocksPerMultiprocessor = 2;

// Fewer keys than a tile of `attend` has are not shared out.
constexpr int64_t kKeysOfASplit = 64;

std::string unlike(const std::string& subject, const std::string& expected, const std::string& found) {
  return "CachedAttention: " + subject + ": expected " + expected + ", found " + found;
}

std::string check_range(const char* subject, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return "";
  return unlike(subject, std::to_string(low) + " to " + std::to_string(high), std::to_string(value));
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A call takes as long as its waves of blocks, each a share of the cache rows: the fewest splits for which that is
// least, and none where they would not save a tenth, for parts are written, read and merged.
int64_t choose_splits(int64_t blocks, int64_t places, int64_t room) {
  const auto cost = [&](int64_t splits) {
    return static_cast<double>(divide_up(blocks * splits, places)) / static_cast<double>(splits);
  };
  int64_t best = 1;
  for (int64_t splits = 2; splits <= room; ++splits)
    if (cost(splits) < cost(best)) best = splits;
  return cost(best) < 0.9 * cost(1) ? best : 1;
}

int64_t rows_of(const Shape& s) { return static_cast<int64_t>(s.tokens) * group_heads(s); }

}  // namespace

std::string check_shape(const Shape& s) {
  std::string fault;
  const auto range = [&](const char* subject, int64_t value, int64_t low, int64_t high) {
    if (fault.empty()) fault = check_range(subject, value, low, high);
  };
  const auto multiple = [&](const char* subject, int64_t value, int64_t of, const char* what) {
    if (fault.empty() && value % of != 0)
      fault = unlike(subject, "a multiple of " + std::to_string(of) + what, std::to_string(value));
  };
  range("batch", s.batch, 1, kMaxBatch);
  range("tokens", s.tokens, 1, kMaxTokens);
  range("num_heads", s.heads, 1, INT32_MAX);
  range("num_key_value_heads", s.key_value_heads, 1, kMaxKeyValueHeads);
  multiple("num_heads", s.heads, std::max(s.key_value_heads, 1), ", num_key_value_heads");
  range("head_dim", s.head_dim, kHeadDimStep, kMaxHeadDim);
  multiple("head_dim", s.head_dim, kHeadDimStep, "");
  range("rows of the caches", s.context, 1, kMaxContext);
  if (!fault.empty()) return fault;
  range("elements of one token", static_cast<int64_t>(s.heads) * s.head_dim, 1, kMaxElements);
  if (!fault.empty()) return fault;
  range("elements of one sequence", static_cast<int64_t>(s.tokens) * s.heads * s.head_dim, 1, kMaxElements);
  const int64_t head = static_cast<int64_t>(s.context) * s.head_dim;
  range("heads of a cache", static_cast<int64_t>(s.batch) * s.key_value_heads, 1, kMaxBytes / kBytesPerElement / head);
  return fault;
}

std::string check_scale(float scale) {
  if (std::isfinite(scale) && scale > 0.f) return "";
  return unlike("scale", "a finite number above 0", std::to_string(scale));
}

std::string check_capability(int major, const Args& args) {
  const bool small = args.dtype == ELASTIC_FLOAT16 && args.shape.head_dim <= kMaxTuringHeadDim;
  if (major >= (small ? kTuring : kAmpere)) return "";
  return unlike("compute capability", small ? "7.5 or later" : "8.0 or later for bfloat16 or heads above 128",
                std::to_string(major) + ".x");
}

std::string choose_kernel(const Shape& shape, int32_t asked, ElasticAttentionKernel* chosen) {
  switch (asked) {
    case ELASTIC_ATTENTION_AUTO:
      *chosen = rows_of(shape) <= kDecodeRows ? ELASTIC_ATTENTION_DECODE : ELASTIC_ATTENTION_PREFILL;
      return "";
    case ELASTIC_ATTENTION_DECODE:
    case ELASTIC_ATTENTION_PREFILL:
      *chosen = static_cast<ElasticAttentionKernel>(asked);
      return "";
    default:
      return unlike("kernel", "0 (auto), 1 (decode) or 2 (prefill)", std::to_string(asked));
  }
}

Cut choose_cut(const Shape& s, ElasticAttentionKernel kernel, int multiprocessors) {
  const int64_t rows = kernel == ELASTIC_ATTENTION_DECODE ? kDecodeRows : kPrefillRows;
  const int64_t tiles = divide_up(rows_of(s), rows), blocks = tiles * s.key_value_heads * s.batch;
  const int64_t room = std::min({static_cast<int64_t>(kMaxSplits), kMaxPartRows / rows / blocks,
                                 divide_up(s.context, kKeysOfASplit)});
  const int64_t splits = choose_splits(blocks, kBlocksPerMultiprocessor * multiprocessors, room);
  return {static_cast<int>(rows), static_cast<int>(tiles), static_cast<int>(splits)};
}

ElasticAttentionRequirements requirements_of(const Shape& s) {
  return {sizeof(float) * static_cast<uint64_t>(workspace_floats(kMaxPartRows, s.head_dim))};
}

}  // namespace elastic::attention
