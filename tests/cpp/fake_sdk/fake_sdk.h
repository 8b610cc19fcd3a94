// What a test may set and see of the stand-ins.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace fake {

struct State {
  bool has_device = true, can_capture = true;
  int major = 12, minor = 0, version[3] = {1, 7, 1};
  std::size_t free_bytes = std::size_t{8} << 30;
  int enqueued = 0, replayed = 0, live_allocations = 0, strided_copies = 0;
  std::string plugin, cache_read;
  std::function<void()>* capturing = nullptr;  // where the work of a stream goes instead of being done
};

State& state();

/// Vocabulary and context of the one engine there is.
constexpr int kVocab = 16, kContext = 20, kMaxTokens = 4;

}  // namespace fake
