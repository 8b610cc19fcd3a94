#include "elastic_runtime/slicing.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "elastic_runtime/error.h"
#include "files.h"

namespace elastic {
namespace {

constexpr std::uint64_t kBandBytes = 8 << 20;  // source bytes between two releases: bounds resident memory

constexpr std::int64_t kMaxBlocks = 1 << 22;  // real recipes have thousands

/// The runs of an axis of `size`, written one behind the other from index `first` of an axis of `width`.
struct Axis {
  std::uint64_t size;
  Runs runs;
  std::uint64_t width, first;

  std::uint64_t kept() const {
    std::uint64_t sum = 0;
    for (const Run& run : runs) sum += static_cast<std::uint64_t>(run.count);
    return sum;
  }
  /// Whether it is copied as it is, and fills what is written.
  bool whole() const {
    return runs.size() == 1 && static_cast<std::uint64_t>(runs[0].count) == size && width == size;
  }
};

Runs merged(const Runs& runs) {
  Runs result;
  for (const Run& run : runs) {
    if (!result.empty() && result.back().start + result.back().count == run.start) {
      result.back().count += run.count;
    } else {
      result.push_back(run);
    }
  }
  return result;
}

/// The axes that matter: those of size 1 on both sides dropped, whole ones at the end folded into the element
/// `unit`.
std::vector<Axis> cut_axes(const std::vector<std::int64_t>& shape, const TensorRuns& runs,
                           const std::optional<Window>& window, std::uint64_t& unit) {
  std::vector<Axis> axes;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    Axis axis{static_cast<std::uint64_t>(shape[i]), merged(runs[i]), 0, 0};
    axis.width = axis.kept();
    if (window && window->axis == i) {
      axis.width = static_cast<std::uint64_t>(window->shape[i]);
      axis.first = static_cast<std::uint64_t>(window->first);
    }
    if (axis.size != 1 || axis.width != 1) axes.push_back(std::move(axis));
  }
  while (!axes.empty() && axes.back().whole()) {
    unit *= axes.back().size;
    axes.pop_back();
  }
  return axes;
}

/// Blocks of the two last axes, for one choice of the indices before them.
void add_plane(const Axis& rows, const Axis& columns, std::uint64_t unit, std::uint64_t source,
               std::uint64_t target, std::vector<Block>& blocks) {
  const std::uint64_t source_pitch = columns.size * unit, target_pitch = columns.width * unit;
  target += rows.first * target_pitch + columns.first * unit;
  for (const Run& row : rows.runs) {
    std::uint64_t column_at = 0;
    for (const Run& column : columns.runs) {
      const auto width = static_cast<std::uint64_t>(column.count) * unit;
      const auto first = static_cast<std::uint64_t>(row.start) * source_pitch +
                         static_cast<std::uint64_t>(column.start) * unit;
      blocks.push_back({source + first, target + column_at, width, static_cast<std::uint64_t>(row.count),
                        source_pitch, target_pitch});
      column_at += width;
    }
    target += static_cast<std::uint64_t>(row.count) * target_pitch;
  }
}

void add_axes(const std::vector<Axis>& axes, std::size_t axis, std::uint64_t unit, std::uint64_t source,
              std::uint64_t target, std::vector<Block>& blocks) {
  if (axis + 2 == axes.size()) return add_plane(axes[axis], axes[axis + 1], unit, source, target, blocks);
  std::uint64_t source_stride = unit, target_stride = unit;
  for (std::size_t i = axis + 1; i < axes.size(); ++i) {
    source_stride *= axes[i].size;
    target_stride *= axes[i].width;
  }
  target += axes[axis].first * target_stride;
  for (const Run& run : axes[axis].runs) {
    for (std::int64_t index = run.start; index < run.start + run.count; ++index, target += target_stride) {
      add_axes(axes, axis + 1, unit, source + static_cast<std::uint64_t>(index) * source_stride, target,
               blocks);
    }
  }
}

/// A recipe may be small and ask for more pieces than memory holds.
void check_count(const std::vector<Axis>& axes) {
  std::int64_t pieces = 1;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const bool plane = i + 2 >= axes.size();
    pieces = times(pieces, static_cast<std::int64_t>(plane ? axes[i].runs.size() : axes[i].kept()));
  }
  if (pieces > kMaxBlocks) {
    throw InputError("runs", "a slice of at most " + std::to_string(kMaxBlocks) + " pieces",
                     std::to_string(pieces), "export the bundle with sliced weights");
  }
}

}  // namespace

std::vector<Block> strided_blocks(const std::vector<std::int64_t>& shape, const TensorRuns& runs,
                                  std::uint64_t itemsize, const std::optional<Window>& window) {
  std::uint64_t unit = itemsize;
  std::vector<Axis> axes = cut_axes(shape, runs, window, unit);
  while (axes.size() < 2) axes.insert(axes.begin(), Axis{1, {{0, 1}}, 1, 0});
  check_count(axes);
  std::vector<Block> blocks;
  add_axes(axes, 0, unit, 0, 0, blocks);
  return blocks;
}

std::size_t end_of_rows(const std::vector<Block>& blocks, std::size_t first) {
  const Block& left = blocks[first];
  std::size_t end = first + 1;
  for (std::uint64_t target = left.target + left.width; end < blocks.size(); ++end) {
    const Block& next = blocks[end];
    const bool beside = next.target == target && next.target_pitch == left.target_pitch;
    if (!beside || next.height != left.height || next.source_pitch != left.source_pitch ||
        next.source <= left.source || next.source + next.width > left.source + left.source_pitch)
      break;
    target += next.width;
  }
  return end;
}

void copy_blocks(const std::byte* source, std::byte* target, const std::vector<Block>& blocks,
                 const Touch& fetch, const Touch& release) {
  for (std::size_t first = 0, last; first < blocks.size(); first = last) {
    last = end_of_rows(blocks, first);
    const Block& left = blocks[first];
    const std::uint64_t right =
        blocks[last - 1].source + blocks[last - 1].width - left.source;  // of a row, from `left`
    const std::uint64_t band =
        std::max<std::uint64_t>(1, kBandBytes / std::max<std::uint64_t>(1, left.source_pitch));
    for (std::uint64_t row = 0; row < left.height; row += band) {
      const std::uint64_t rows = std::min(band, left.height - row);
      const std::uint64_t start = left.source + row * left.source_pitch;
      const std::uint64_t bytes = (rows - 1) * left.source_pitch + right;
      if (fetch) fetch(start, bytes);
      for (std::uint64_t i = row; i < row + rows; ++i) {
        for (std::size_t b = first; b < last; ++b) {
          const Block& block = blocks[b];
          std::memcpy(target + block.target + i * block.target_pitch,
                      source + block.source + i * block.source_pitch, block.width);
        }
      }
      if (release) release(start, bytes);
    }
  }
}

}  // namespace elastic
