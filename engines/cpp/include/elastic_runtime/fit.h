// How much GPU memory a budget needs; the same function as elastic_runtime/fit/vram.py.
//
//     VRAM = weights + batch x (state + KV x context) + activation memory of the larger profile + reserve
//
// `context` is the engine's max_context: its caches are allocated whole, however short the prompt. Where an engine gives
// the logits of every token, the activation memory holds their buffer too.
#pragma once

#include <cstdint>
#include <string>

namespace elastic {

inline constexpr std::int64_t kGib = std::int64_t{1} << 30;
inline constexpr std::int64_t kReserveBytes =
    6 * kGib / 10;  ///< CUDA context, TensorRT's buffers, fragmentation

/// What the memory of a sub-model depends on. Bytes; state per sequence, KV per token of a sequence.
struct BudgetSize {
  std::int64_t weight_bytes = 0;
  std::int64_t state_bytes = 0;
  std::int64_t kv_bytes_per_token = 0;
  std::int64_t activation = 0;
  bool activation_measured = false;
};

/// The reckoning, bytes; `states` and `caches` of all `batch` sequences. Sums beyond 63 bits stop at the
/// largest count.
struct VramNeed {
  std::int64_t context = 0, batch = 0;
  std::int64_t weights = 0, states = 0, caches = 0, activation = 0;
  bool activation_measured = false;
  std::int64_t reserve = kReserveBytes, total = 0;

  /// One line: every term and the sum, GiB.
  std::string text() const;
};

/// Throws InputError: context or batch below 1.
VramNeed vram_needed(const BudgetSize& size, std::int64_t context, std::int64_t batch = 1);

/// Bytes as GiB with one decimal (two below 0.1).
std::string gib(std::int64_t bytes);

/// Bytes that text such as `12GiB`, `12 gb`, `1TiB` or `1073741824` names; as sizes.py. Throws InputError
/// about `subject`.
std::int64_t parse_bytes(const std::string& text, const std::string& subject);

}  // namespace elastic
