// Main memory under onnxruntime.
#include "check.h"
#include "ort/onnx_memory.h"

using namespace elastic;
using namespace elastic_test;

/// The address sanitizer ends the program where there is no room, unless it is told to answer as others do.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

TEST(memory_without_room_is_an_error_of_ours) {
  const auto memory = onnx::make_host_memory();
  CHECK_EQ(std::string(THROWN(BuildError, memory->allocate(std::size_t{1} << 62)).what()),
           "memory: expected room for 4611686018427387904 bytes more, found none. Close other programs, or "
           "take a smaller budget, batch or context.");
}
