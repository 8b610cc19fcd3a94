// What the thread sanitizer is told where kernels are built with it: to it every CUDA thread is a thread of its own, and
// only what a card orders is ordered: barriers, the ends of launches, released atomics that are seen. The exchanges of a
// warp (shuffles, ldmatrix, mma) order no memory: PTX says so of none of them. The shim itself is built without the
// sanitizer, and nothing is told of it. In other builds all of this is nothing.
#pragma once

#include <cstddef>

#if defined(ELASTIC_WATCH_RACES)
#include <sanitizer/tsan_interface.h>

extern "C" {
void __tsan_ignore_thread_begin();
void __tsan_ignore_thread_end();
void __tsan_read_range_pc(void* first, unsigned long bytes, void* where);
void __tsan_write_range_pc(void* first, unsigned long bytes, void* where);
}
#endif

namespace elastic::shim::races {

#if defined(ELASTIC_WATCH_RACES)
constexpr bool kWatched = true;

// A flow of control of its own; the one that runs must be named before the stacks change.
class Flow {
 public:
  Flow() = default;
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;
  ~Flow() {
    if (fiber_) __tsan_destroy_fiber(fiber_);
  }

  void name(const char* text) { __tsan_set_fiber_name(fiber(), text); }
  void enter() {
    void* const inside = fiber();
    outside_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(inside, __tsan_switch_to_fiber_no_sync);
  }
  void leave() { __tsan_switch_to_fiber(outside_, __tsan_switch_to_fiber_no_sync); }

 private:
  void* fiber() { return fiber_ ? fiber_ : fiber_ = __tsan_create_fiber(0); }

  void* fiber_ = nullptr;
  void* outside_ = nullptr;
};

// While it lives, what this flow does is the shim's own affair.
class Quiet {
 public:
  Quiet() { __tsan_ignore_thread_begin(); }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
  ~Quiet() { __tsan_ignore_thread_end(); }
};

// Whatever a flow did before it released `what` comes before all that another does once it has acquired it.
inline void release(void* what) { __tsan_release(what); }
inline void acquire(void* what) { __tsan_acquire(what); }

// Accesses of the flow that runs; `where`: the address in a kernel that the report shall name.
inline void reads(const void* first, std::size_t bytes, void* where) {
  __tsan_read_range_pc(const_cast<void*>(first), bytes, where);
}
inline void writes(void* first, std::size_t bytes, void* where) { __tsan_write_range_pc(first, bytes, where); }

#else
constexpr bool kWatched = false;

struct Flow {
  void name(const char*) {}
  void enter() {}
  void leave() {}
};
struct Quiet {
  Quiet() {}  // so that one that is not used is no warning
};
inline void release(void*) {}
inline void acquire(void*) {}
inline void reads(const void*, std::size_t, void*) {}
inline void writes(void*, std::size_t, void*) {}

#endif

}  // namespace elastic::shim::races
