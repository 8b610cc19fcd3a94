// Weights on their way to the device, through page-locked memory. Private to the library.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "driver/cuda_memory.h"
#include "elastic_runtime/slicing.h"

namespace elastic::cuda {

/// Two buffers that take turns: one is filled from the mapped file while the other is copied to the device.
/// Pageable memory would be copied to the driver's own buffer first, and the file read while the bus waits.
class Staging {
 public:
  explicit Staging(cudaStream_t stream, std::size_t bytes = std::size_t{64} << 20)
      : stream_(stream), bytes_(bytes) {
    for (Slot& slot : slots_) {
      slot.memory = pin<std::byte>(bytes);
      slot.copied = make_event();
    }
  }

  /// The strided copies of slicing.h, a band of rows at a time: bounds what of the file is resident. What was
  /// read may be released when this returns; it is on the device when the stream has been waited for.
  void copy(const std::byte* source, void* target, const std::vector<Block>& blocks, const Touch& fetch,
            const Touch& release) {
    for (const Block& block : blocks) {
      if (block.contiguous()) {
        const std::uint64_t size = block.width * block.height;
        for (std::uint64_t done = 0; done < size; done += bytes_) {
          const std::uint64_t count = std::min<std::uint64_t>(bytes_, size - done);
          const Block piece{block.source + done, block.target + done, count, 1, count, count};
          band(source, target, piece, fetch, release);
        }
      } else {
        rows(source, target, block, fetch, release);
      }
    }
  }

 private:
  struct Slot {
    Pinned<std::byte> memory;
    Event copied;
    bool used = false;
  };

  /// Rows of a block, as many at a time as a buffer holds of the result and of the file's bytes between them.
  void rows(const std::byte* source, void* target, const Block& block, const Touch& fetch,
            const Touch& release) {
    const std::uint64_t fitting = std::min(bytes_ / block.width, bytes_ / block.source_pitch);
    const std::uint64_t most = std::max<std::uint64_t>(1, fitting);
    for (std::uint64_t row = 0; row < block.height; row += most) {
      Block piece = block;
      piece.source += row * block.source_pitch;
      piece.target += row * block.target_pitch;
      piece.height = std::min(most, block.height - row);
      band(source, target, piece, fetch, release);
    }
  }

  void band(const std::byte* source, void* target, const Block& piece, const Touch& fetch,
            const Touch& release) {
    if (piece.width > bytes_) throw BuildError("copying weights", "rows of at most 64 MiB", "a longer one");
    Slot& slot = slots_[next_];
    next_ = 1 - next_;
    if (slot.used) check(cudaEventSynchronize(slot.copied.get()), "copying weights to the GPU");
    const std::uint64_t spanned = (piece.height - 1) * piece.source_pitch + piece.width;
    fetch(piece.source, spanned);
    for (std::uint64_t row = 0; row < piece.height; ++row)
      std::memcpy(slot.memory.get() + row * piece.width, source + piece.source + row * piece.source_pitch,
                  piece.width);
    release(piece.source, spanned);
    auto* to = static_cast<std::byte*>(target) + piece.target;
    const bool flat = piece.height == 1 || piece.target_pitch == piece.width;
    check(flat ? cudaMemcpyAsync(to, slot.memory.get(), piece.width * piece.height, cudaMemcpyHostToDevice,
                                 stream_)
               : cudaMemcpy2DAsync(to, piece.target_pitch, slot.memory.get(), piece.width, piece.width,
                                   piece.height, cudaMemcpyHostToDevice, stream_),
          "copying weights to the GPU");
    check(cudaEventRecord(slot.copied.get(), stream_), "copying weights to the GPU");
    slot.used = true;
  }

  cudaStream_t stream_;
  std::size_t bytes_;
  Slot slots_[2];
  int next_ = 0;
};

}  // namespace elastic::cuda
