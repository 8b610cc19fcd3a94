#include <cstring>
#include <new>

#include "elastic_runtime/error.h"
#include "ort/onnx_api.h"
#include "ort/onnx_memory.h"

namespace elastic::onnx {
namespace {

class HostMemory : public Memory {
 public:
  HostMemory() {
    OrtMemoryInfo* made = nullptr;
    check(api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &made));
    info_.reset(made);
  }

  void add_provider(OrtSessionOptions*) const override {}

  const OrtMemoryInfo* info() const override { return info_.get(); }

  bool is_host() const override { return true; }

  Bytes allocate(std::size_t bytes) override {
    void* const memory = ::operator new(bytes, std::nothrow);
    if (!memory)
      throw BuildError("memory", "room for " + std::to_string(bytes) + " bytes more", "none",
                       "close other programs, or take a smaller budget, batch or context");
    return Bytes(memory, [](void* held) { ::operator delete(held); });
  }

  void zero(void* memory, std::size_t bytes) override { std::memset(memory, 0, bytes); }

  void copy(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, Rows rows) override {
    for (std::size_t i = 0; i < rows.height && rows.width != 0; ++i)
      std::memcpy(static_cast<std::byte*>(to) + i * to_pitch,
                  static_cast<const std::byte*>(from) + i * from_pitch, rows.width);
  }

 private:
  Owned<OrtMemoryInfo> info_;
};

}  // namespace

std::unique_ptr<Memory> make_host_memory() { return std::make_unique<HostMemory>(); }

}  // namespace elastic::onnx
