#include "elastic_runtime/slicing.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "elastic_runtime/error.h"
#include "files.h"

namespace elastic {
namespace {

// A page that is mapped to be copied once costs more than reading it into the cache and copying it from
// there.
constexpr std::size_t kBandBytes = std::size_t{512} << 10;  // half of a processor's own cache, or less
constexpr std::size_t kMostThreads = 4;                     // memory is the limit soon after
constexpr std::size_t kLeastBands = 4;  // of a thread: copying fewer takes no longer than to start it

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

/// What is read at once.
struct Band {
  std::uint64_t source = 0;
  std::size_t bytes = 0;
  std::uint64_t target = 0;         ///< of the first byte, where it is one piece there too
  std::size_t first = 0, last = 0;  ///< else the blocks that are columns of its rows,
  std::uint64_t row = 0, rows = 0;  ///< and which rows of theirs
};

void add_pieces(std::uint64_t source, std::uint64_t target, std::uint64_t size, std::vector<Band>& bands) {
  for (std::uint64_t done = 0; done < size; done += kBandBytes) {
    const std::size_t bytes = std::min<std::uint64_t>(kBandBytes, size - done);
    bands.push_back({source + done, bytes, target + done});
  }
}

/// Columns of one row: as many together as a band spans, in pieces those that are longer.
void add_row(const std::vector<Block>& blocks, std::size_t first, std::size_t last, std::uint64_t row,
             std::vector<Band>& bands) {
  for (std::size_t end; first < last; first = end) {
    const Block& left = blocks[first];
    const std::uint64_t source = left.source + row * left.source_pitch;
    const auto span = [&](const Block& block) { return block.source + block.width - left.source; };
    for (end = first + 1; end < last && span(blocks[end]) <= kBandBytes;) ++end;
    if (end == first + 1) {
      add_pieces(source, left.target + row * left.target_pitch, left.width, bands);
    } else {
      bands.push_back({source, static_cast<std::size_t>(span(blocks[end - 1])), 0, first, end, row, 1});
    }
  }
}

std::vector<Band> bands_of(const std::vector<Block>& blocks) {
  std::vector<Band> bands;
  for (std::size_t first = 0, last; first < blocks.size(); first = last) {
    last = end_of_rows(blocks, first);
    const Block &left = blocks[first], &right = blocks[last - 1];
    const std::uint64_t pitch = left.source_pitch, span = right.source + right.width - left.source;
    if (last == first + 1 && left.contiguous()) {
      add_pieces(left.source, left.target, left.width * left.height, bands);
    } else if (span <= kBandBytes) {
      const std::uint64_t most = left.height == 1 ? 1 : 1 + (kBandBytes - span) / pitch;
      for (std::uint64_t row = 0; row < left.height; row += most) {
        const std::uint64_t rows = std::min(most, left.height - row);
        const std::size_t bytes = (rows - 1) * pitch + span;
        bands.push_back({left.source + row * pitch, bytes, 0, first, last, row, rows});
      }
    } else {  // a row is longer than a band
      for (std::uint64_t row = 0; row < left.height; ++row) add_row(blocks, first, last, row, bands);
    }
  }
  return bands;
}

void copy_band(const Read& read, std::byte* target, const std::vector<Block>& blocks, const Band& band,
               std::byte* buffer) {
  if (band.rows == 0) return read(band.source, target + band.target, band.bytes);
  read(band.source, buffer, band.bytes);
  for (std::uint64_t row = band.row; row < band.row + band.rows; ++row) {
    for (std::size_t b = band.first; b < band.last; ++b) {
      const Block& block = blocks[b];
      const std::byte* from = buffer + (block.source + row * block.source_pitch - band.source);
      std::memcpy(target + block.target + row * block.target_pitch, from, block.width);
    }
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

Read reader_of(const std::byte* source) {
  return [source](std::uint64_t at, std::byte* into, std::size_t count) {
    std::memcpy(into, source + at, count);
  };
}

void read_blocks(const Read& read, std::byte* target, const std::vector<Block>& blocks,
                 const std::function<void(std::size_t)>& on_bytes) {
  const std::vector<Band> bands = bands_of(blocks);
  std::mutex mutex;  // of what follows, and of `on_bytes`
  std::size_t next = 0;
  std::exception_ptr failure;
  const auto take = [&]() -> const Band* {
    const std::lock_guard<std::mutex> lock(mutex);
    if (failure || next == bands.size()) return nullptr;
    if (on_bytes) on_bytes(bands[next].bytes);
    return &bands[next++];
  };
  const auto work = [&] {
    try {
      const std::unique_ptr<std::byte[]> buffer(new std::byte[kBandBytes]);
      while (const Band* band = take()) copy_band(read, target, blocks, *band, buffer.get());
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  const std::size_t threads = std::min<std::size_t>(kMostThreads, std::thread::hardware_concurrency());
  const std::size_t useful = std::min(threads, bands.size() / kLeastBands);
  others.reserve(useful);
  while (others.size() + 1 < useful) {
    try {
      others.emplace_back(work);
    } catch (const std::exception&) {
      break;  // no more threads, or no memory for one: fewer do it too, and those that run must be waited for
    }
  }
  work();
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace elastic
