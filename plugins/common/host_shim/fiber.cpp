#include "fiber.h"

#include <cstdlib>

#if defined(__x86_64__)
extern "C" void elastic_shim_switch(void** save, void* load);
// Callee-saved registers go to the old stack, the stack pointers change places, the rest comes from the new
// one.
asm(R"(
.text
.globl elastic_shim_switch
.type elastic_shim_switch, @function
elastic_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size elastic_shim_switch, .-elastic_shim_switch
.section .note.GNU-stack,"",@progbits
.text
)");
#endif

namespace elastic::shim {
namespace {

void switch_context(Context& from, Context& to) {
#if defined(__x86_64__)
  elastic_shim_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.machine, &to.machine);
#endif
}

// The sanitizer follows the stacks: it is told before a switch and after it.
void announce([[maybe_unused]] void** keep, [[maybe_unused]] const void* bottom, [[maybe_unused]] std::size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(keep, bottom, size);
#endif
}
void confirm([[maybe_unused]] void* kept, [[maybe_unused]] const void** bottom, [[maybe_unused]] std::size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(kept, bottom, size);
#endif
}

}  // namespace

void Fiber::start(Entry entry) {
  inside_.fake_stack = nullptr;
#if defined(__x86_64__)
  constexpr std::uintptr_t kAlign = 16;
  constexpr int kSaved = 6;  // registers that the switch takes from a stack
  auto top = reinterpret_cast<std::uintptr_t>(stack_.get() + kStackBytes) & ~(kAlign - 1);
  auto** slot = reinterpret_cast<void**>(top);
  *--slot = nullptr;  // as if entry had been called: its return address, never used
  *--slot = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSaved; ++i) *--slot = nullptr;
  inside_.stack_pointer = slot;
#else
  getcontext(&inside_.machine);
  inside_.machine.uc_stack = {stack_.get(), 0, kStackBytes};
  inside_.machine.uc_link = nullptr;
  makecontext(&inside_.machine, entry, 0);
#endif
}

void Fiber::resume() {
  announce(&outside_.fake_stack, stack_.get(), kStackBytes);
  flow_.enter();
  switch_context(outside_, inside_);
  confirm(outside_.fake_stack, nullptr, nullptr);
}

void Fiber::arrived() { confirm(inside_.fake_stack, &outside_bottom_, &outside_size_); }

void Fiber::yield() {
  announce(&inside_.fake_stack, outside_bottom_, outside_size_);
  flow_.leave();
  switch_context(inside_, outside_);
  arrived();
}

void Fiber::leave_for_good() {
  announce(nullptr, outside_bottom_, outside_size_);
  flow_.leave();
  switch_context(inside_, outside_);
  std::abort();  // nobody resumes a finished fiber
}

}  // namespace elastic::shim
