// What a test may set and see of the stand-ins.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace fake {

/// Vocabulary and context of the one engine there is.
constexpr int kVocab = 16, kContext = 20, kMaxTokens = 4;

struct State {
  bool has_driver = true, has_device = true, can_capture = true, recordable = true, replays_itself = false;
  int validity = 0, driver = CUDART_VERSION;
  std::uint64_t faults = 0;
  int weight_type = 0;  // the DataType that the engine says its one weight has; it computes in kFLOAT
  std::vector<std::int64_t> logits = {-1, kVocab};  // the shape that it says they have, and their DataType
  int logits_type = 0;
  std::string on_host, shapes_of, missing;  // tensors by name; the engine knows the last by another
  int threads_that_log = 0;                 // a thousand errors and warnings each, while an engine is read
  std::map<std::string, std::string> aliases = {{"ssm_state_out.0", "ssm_state.0"},
                                                {"key_cache_out.0", "key_cache.0"}};
  std::vector<int> kernels;                     // strategies of the contexts, in the order of their making
  std::map<const char*, std::size_t> pinned;    // page-locked memory
  std::vector<std::function<void()>> underway;  // copies from it, which read it when they are waited for
  int major = 12, minor = 0, version[3] = {1, 7, 1};
  std::size_t free_bytes = std::size_t{8} << 30;
  std::size_t room = SIZE_MAX;  // of an allocation, whatever was free before; at 0 not even a context starts
  std::size_t context_bytes = std::size_t{1} << 30;  // taken when the first memory is
  int nvml_error = 0, current_card = 0;
  int calls = 0;          // that CUDA or TensorRT could have refused so far
  int refuses = 0;        // the call of that number, whichever it is; 0: none
  int live = 0;           // objects of TensorRT, streams, events and graphs
  int fails_at = 0;       // of the allocations: that many succeed, then the card is gone; 0: none is
  std::string asked_bus;  // where NVML was asked for a card
  std::string refused;    // an engine of these bytes cannot run here, which only its header shows
  std::string judged;     // the bytes of the last engine whose header was asked
  std::function<void()> when_judged;
  bool refuses_plugins = false;
  bool logs_on = false;  // a thread logs from when an engine is read until its first context is made
  int enqueued = 0, replayed = 0, live_allocations = 0;
  std::string plugin, cache_read;
  bool has_provider = false;                   // onnxruntime's for CUDA
  std::string provider_fails;                  // why it does not start
  std::function<void()>* capturing = nullptr;  // where the work of a stream goes instead of being done
};

State& state();

/// Whether the call that is made now succeeds.
inline bool taken() { return ++state().calls != state().refuses; }

/// A member of an object that is counted while it lives.
struct Living {
  Living() { ++state().live; }
  ~Living() { --state().live; }
  Living(const Living&) = delete;
};

}  // namespace fake
