// Weights on their way to the device, through page-locked memory. Private to the library.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "driver/cuda_memory.h"
#include "elastic_runtime/slicing.h"

namespace elastic::cuda {

/// Two buffers that take turns: the file is read and cut into one while the other is copied to the device.
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

  /// The strided copies of slicing.h out of what `read` reads. All of it is read when this returns; it is on
  /// the device when the stream has been waited for. `on_bytes` as for `read_blocks`.
  void copy(const Read& read, void* target, const std::vector<Block>& blocks,
            const std::function<void(std::size_t)>& on_bytes) {
    const auto in_pieces = [&](std::uint64_t from, std::uint64_t to, std::uint64_t size) {
      for (std::uint64_t done = 0; done < size; done += bytes_) {
        const std::uint64_t count = std::min<std::uint64_t>(bytes_, size - done);
        band(read, target, {{from + done, to + done, count, 1, count, count}}, 0, 1, on_bytes);
      }
    };
    for (std::size_t first = 0, last; first < blocks.size(); first = last) {
      const Block& block = blocks[first];
      last = block.contiguous() ? first + 1 : end_of_rows(blocks, first);
      const std::vector<Block> columns(blocks.begin() + at(first), blocks.begin() + at(last));
      if (block.contiguous()) {
        in_pieces(block.source, block.target, block.width * block.height);
      } else if (width_of(columns) <= bytes_) {
        rows(read, target, columns, on_bytes);
      } else {  // a row longer than a buffer
        for (const Block& column : columns)
          for (std::uint64_t row = 0; row < column.height; ++row)
            in_pieces(column.source + row * column.source_pitch, column.target + row * column.target_pitch,
                      column.width);
      }
    }
  }

 private:
  struct Slot {
    Pinned<std::byte> memory;
    Event copied;
    bool used = false;
  };

  /// Columns of the same rows, as many rows at a time as a buffer holds.
  void rows(const Read& read, void* target, const std::vector<Block>& columns,
            const std::function<void(std::size_t)>& on_bytes) {
    const std::uint64_t height = columns.front().height, most = bytes_ / width_of(columns);
    for (std::uint64_t row = 0; row < height; row += most)
      band(read, target, columns, row, std::min(most, height - row), on_bytes);
  }

  /// `height` rows from `row` on: columns that lie apart in the file leave as one piece.
  void band(const Read& read, void* target, const std::vector<Block>& columns, std::uint64_t row,
            std::uint64_t height, const std::function<void(std::size_t)>& on_bytes) {
    const Block& left = columns.front();
    const std::uint64_t width = width_of(columns);
    Slot& slot = slots_[next_];
    next_ = 1 - next_;
    if (slot.used) check(cudaEventSynchronize(slot.copied.get()), "copying weights to the GPU");
    std::vector<Block> packed;
    for (const Block& column : columns) {
      const std::uint64_t from = column.source + row * column.source_pitch;
      packed.push_back({from, column.target - left.target, column.width, height, column.source_pitch, width});
    }
    read_blocks(read, slot.memory.get(), packed, on_bytes);
    auto* to = static_cast<std::byte*>(target) + left.target + row * left.target_pitch;
    const bool flat = height == 1 || left.target_pitch == width;
    check(flat ? cudaMemcpyAsync(to, slot.memory.get(), width * height, cudaMemcpyHostToDevice, stream_)
               : cudaMemcpy2DAsync(to, left.target_pitch, slot.memory.get(), width, width, height,
                                   cudaMemcpyHostToDevice, stream_),
          "copying weights to the GPU");
    check(cudaEventRecord(slot.copied.get(), stream_), "copying weights to the GPU");
    slot.used = true;
  }

  static std::uint64_t width_of(const std::vector<Block>& columns) {
    return columns.back().target + columns.back().width - columns.front().target;
  }

  static std::ptrdiff_t at(std::size_t index) { return static_cast<std::ptrdiff_t>(index); }

  cudaStream_t stream_;
  std::size_t bytes_;
  Slot slots_[2];
  int next_ = 0;
};

}  // namespace elastic::cuda
