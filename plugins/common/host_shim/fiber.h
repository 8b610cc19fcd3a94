// One stack of its own for each CUDA thread: switched by hand on x86-64 (some 10 ns), by ucontext elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "races.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace elastic::shim {

// Where a suspended flow of control goes on.
struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t machine;
#endif
  void* fake_stack = nullptr;  // the address sanitizer's, kept while suspended
};

class Fiber {
 public:
  using Entry = void (*)();
  static constexpr std::size_t kStackBytes = 64 * 1024;

  Fiber() : stack_(new unsigned char[kStackBytes]) {}

  // Prepares a fresh run of `entry`; it must call `leave_for_good` instead of returning.
  void start(Entry entry);
  // Runs the fiber until it calls `yield`.
  void resume();
  // From inside: back to whoever resumed it.
  void yield();
  [[noreturn]] void leave_for_good();
  // The first call inside a fresh run.
  void arrived();
  // In reports of races.
  void name(const char* text) { flow_.name(text); }

 private:
  std::unique_ptr<unsigned char[]> stack_;
  Context inside_, outside_;
  races::Flow flow_;
  const void* outside_bottom_ = nullptr;
  std::size_t outside_size_ = 0;
};

}  // namespace elastic::shim
