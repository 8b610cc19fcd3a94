// Cutting runs out of a row-major tensor. The slice is row-major and contiguous.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace elastic {

/// Indices [start, start + count) of one axis.
struct Run {
  std::int64_t start = 0, count = 0;
};
using Runs = std::vector<Run>;         ///< along one axis: ascending, not overlapping
using TensorRuns = std::vector<Runs>;  ///< per axis of a tensor

/// Where a part of an array of `shape` lies: from index `first` along `axis`, all of the other axes.
struct Window {
  std::vector<std::int64_t> shape;
  std::size_t axis = 0;
  std::int64_t first = 0;
};

/// `height` rows of `width` bytes: one strided copy (cudaMemcpy2D has the same shape). Offsets and pitches in
/// bytes.
struct Block {
  std::uint64_t source = 0, target = 0;
  std::uint64_t width = 0, height = 0;
  std::uint64_t source_pitch = 0, target_pitch = 0;

  bool contiguous() const { return height == 1 || (width == source_pitch && width == target_pitch); }
};

/// The slice as strided copies, in ascending order of the target; runs that touch are joined, whole axes
/// folded.
/// @param shape    of the tensor, every size >= 1
/// @param runs     inside `shape`, as weights.h checks them
/// @param itemsize bytes of an element
/// @param window   where the slice lies in the array that is written; it is that array unless given
/// Throws InputError: more than 4 million pieces.
std::vector<Block> strided_blocks(const std::vector<std::int64_t>& shape, const TensorRuns& runs,
                                  std::uint64_t itemsize, const std::optional<Window>& window = std::nullopt);

/// One past the blocks that are columns of the same rows as block `first`: they lie side by side in the
/// target, so that the source's pages need be touched once for all of them.
std::size_t end_of_rows(const std::vector<Block>& blocks, std::size_t first);

/// Fills `into` with `count` bytes of a tensor, from its byte `at` on. Several threads call it at once.
using Read = std::function<void(std::uint64_t at, std::byte* into, std::size_t count)>;

/// Reads a tensor that is in memory already.
Read reader_of(const std::byte* source);

/// Copy the blocks out of what `read` reads, on up to four threads: what is one piece on both sides to where
/// it belongs, rows by way of 512 KiB a thread, which stay in the processor's cache.
/// @param on_bytes hears, from any of them but one at a time, how many bytes are read next; what it throws
/// ends
///                 the copying, as what `read` throws does
void read_blocks(const Read& read, std::byte* target, const std::vector<Block>& blocks,
                 const std::function<void(std::size_t)>& on_bytes = {});

}  // namespace elastic
