// The convolution of conv_prefill, its results as operands for tensor cores: see operand_rows.cuh.
//
// Grid (segment blocks + head blocks, token tiles, B). Neighbouring lanes of a warp own one segment of at most 128
// channels, kVec a lane, and so find the segment's unit of each token among themselves. A warp has as many segments as
// it has room for, all of x or all of B and C: with eight channels a lane three heads of 80, which leave two lanes
// idle. One batch of tokens is on its way while the one before is computed.
#pragma once

#include <type_traits>

#include "conv_prefill.cuh"
#include "operand_rows.cuh"

namespace elastic::mamba2 {

constexpr int kSegmentChannels = 128;
static_assert(kSegmentChannels >= kMaxChunkState && kSegmentChannels >= kMaxChunkHeadDim);
constexpr int kSegmentWarps = kConvThreads / kWarp;  // of a block
constexpr int kOperandTokens = 32;                   // a tile: the weights are read once for it, and K-1 tokens again
constexpr int kOperandBatch = 4;
static_assert(kOperandTokens % (2 * kOperandBatch) == 0, "a tile is whole pairs of batches");

// Lanes of a segment, those included that only write the padding behind it.
ELASTIC_HD constexpr int segment_lanes(int channels, int vec) {
  return divide_up(channels, kOperandPiece) * (kOperandPiece / vec);
}

// Segments of equal size, as many a warp as it has room for.
struct SegmentKind {
  int count, lanes;
  ELASTIC_HD int per_warp() const { return kWarp / lanes; }
  ELASTIC_HD int warps() const { return divide_up(count, per_warp()); }
};
// x: `width` channels each but for a head's last.
ELASTIC_HD SegmentKind segments_of_x(const Shape& shape, int width, int vec) {
  const int widest = width < shape.head_dim ? width : shape.head_dim;
  return {divide_up(shape.head_dim, width) * shape.heads, segment_lanes(widest, vec)};
}
// B of each group, then C.
ELASTIC_HD SegmentKind segments_of_groups(const Shape& shape, int vec) {
  return {2 * shape.groups, segment_lanes(shape.state_size, vec)};
}
ELASTIC_HD int segment_warps(const Shape& shape, int width, int vec) {
  return segments_of_x(shape, width, vec).warps() + segments_of_groups(shape, vec).warps();
}

// Where a lane is: the segment, and the lanes that own it. A lane for which there was no room has a segment without
// channels, of its own.
struct SegmentPlace {
  int channel = 0, channels = 0;
  int first_lane = static_cast<int>(threadIdx.x) % kWarp, lanes = 1;

  ELASTIC_D SegmentPlace(const Shape& shape, int width, int vec, int warp) {
    const int lane = first_lane, warps_of_x = segments_of_x(shape, width, vec).warps();
    const bool of_x = warp < warps_of_x;
    const SegmentKind kind = of_x ? segments_of_x(shape, width, vec) : segments_of_groups(shape, vec);
    const int in_warp = lane / kind.lanes;
    const int i = (of_x ? warp : warp - warps_of_x) * kind.per_warp() + in_warp;
    if (in_warp >= kind.per_warp() || i >= kind.count) return;
    first_lane = in_warp * kind.lanes;
    lanes = kind.lanes;
    if (of_x) {
      const int tiles = divide_up(shape.head_dim, width), first = i % tiles * width, left = shape.head_dim - first;
      channel = i / tiles * shape.head_dim + first;
      channels = left < width ? left : width;
    } else {
      channel = inner_channels(shape) + i * shape.state_size;
      channels = shape.state_size;
    }
  }
  ELASTIC_D int lane() const { return static_cast<int>(threadIdx.x) % kWarp - first_lane; }  // of the segment
};

// The largest magnitude of a segment's values: around the ring of its lanes, each knows that of 1, 2, 4, ... lanes from
// itself on, and in the last step of all, whatever their number: that some are met twice does not matter.
template <int kVec>
class SegmentMaximum {
 public:
  ELASTIC_D explicit SegmentMaximum(const SegmentPlace& place) {
    int known = 1;
    ELASTIC_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      const int distance = known < place.lanes - known ? known : place.lanes - known;
      const int lane = place.lane() + distance;
      from_ |= static_cast<uint32_t>(place.first_lane + (lane < place.lanes ? lane : lane - place.lanes)) << 6 * step;
      known += distance;
    }
  }
  ELASTIC_D float operator()(const Pack<float, kVec>& values, bool exist) const {
    float most = 0.f;
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) most = fmaxf(most, fabsf(values.at[v]));
    if (!exist) most = 0.f;
    ELASTIC_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      const int lane = static_cast<int>(from_ >> 6 * step) % kWarp;
      most = fmaxf(most, __shfl_sync(kAllLanes, most, lane));
    }
    return most;
  }

 private:
  static constexpr int kSteps = kVec == 8 ? 4 : 5;
  static_assert(kVec << kSteps == kSegmentChannels, "as many lanes as a segment has at most");
  uint32_t from_ = 0;  // lanes, six bits a step: registers are short here
};

// One segment's tokens on their way to operands.
template <typename Operand, typename T, int kVec>
struct SegmentConvolution {
  // In words: elements by themselves would take a register each.
  static constexpr int kWords = kVec * static_cast<int>(sizeof(T)) / 4;
  using Batch = Pack<uint32_t, kWords>[kOperandBatch];
  ConvView<T, kVec> view;
  uint32_t* pairs;   // where the lane's operands of the next token go
  int pitch, count;  // from token to token; the segment's operands, padding included
  SegmentMaximum<kVec> largest_of_segment;
  int channel, end;  // in the segment; of the tokens
  bool exists, filled;  // the latter: the lane has a piece of what is written behind the operands, see `fills`
  ConvWindow<T, kVec, 4> window;

  // Past the end the last token again: at the end of a branch around the loads they would be waited for.
  ELASTIC_D void load(Batch& batch, int first) const {
    ELASTIC_UNROLL
    for (int i = 0; i < kOperandBatch; ++i) {
      const int token = first + i < end ? first + i : end - 1;
      batch[i] = Input<uint32_t>(view.address(token)).template pack<kWords>(0);
    }
  }
  ELASTIC_D void convolve(const Batch& batch, int first) {
    ELASTIC_UNROLL
    for (int i = 0; i < kOperandBatch; ++i, pairs += pitch) {
      window.set_words(3, batch[i]);
      const Pack<float, kVec> values = activated(window.sum());
      window.slide();
      const float unit = power_of_two_above(largest_of_segment(values, exists)), inverse = inverse_power(unit);
      if (first + i >= end) continue;
      Pack<uint32_t, kVec / 2> operands;
      ELASTIC_UNROLL
      for (int v = 0; v < kVec; v += 2)
        operands.at[v / 2] = exists ? pack_pair<Operand>(values.at[v] * inverse, values.at[v + 1] * inverse) : 0u;
      if (channel < count) store_pack(pairs, operands);
      store_unit(unit);
    }
  }
  ELASTIC_D void run(int begin) {
    Batch even, odd;
    load(even, begin);
    window.start(view, begin);
    for (int first = begin; first < end; first += 2 * kOperandBatch) {
      load(odd, first + kOperandBatch);
      convolve(even, first);
      load(even, first + 2 * kOperandBatch);
      convolve(odd, first + kOperandBatch);
    }
  }

 private:
  // With zeros behind it where there is room: memory takes 32 bytes at a time, and would read what is not written.
  ELASTIC_D void store_unit(float unit) {
    if (filled && channel < 2 * kVec)
      store_pack(pairs + count / 2 + (channel == 0 ? 0 : 4 - kVec / 2), Pack<uint32_t, 4>{{bits_of_float(unit)}});
    else if (channel == 0 && exists)
      pairs[count / 2] = bits_of_float(unit);
  }
  ELASTIC_D static Pack<float, kVec> activated(Pack<float, kVec> values) {
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) values.at[v] = quick_silu(values.at[v]);
    return values;
  }
};

// Whether a lane of a segment writes one of the pieces of 16 bytes, the unit and zeros, that stand behind its operands:
// as many lanes as there are pieces to the end of 32 bytes, none where that end is past the segment's place.
ELASTIC_D bool fills(const SegmentPlace& place, const OperandRows& rows, int lane) {
  const int bytes = 2 * rows.count, end = (bytes / 32 + 1) * 32;
  return 16 * lane < end - bytes && end <= static_cast<int>(sizeof(float)) * place.channels;
}

// Blocks a multiprocessor: as many as leave enough registers to spill none.
template <typename T, int kVec>
ELASTIC_HD constexpr int operand_blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
  return kVec == 8 ? 3 : 4;
#else
  return kVec == 8 && std::is_same_v<T, float16> ? 3 : 4;
#endif
}

// width: channels of a head that a block of chunk_prefill has.
template <typename T, typename Operand, int kVec>
__global__ void __launch_bounds__(kConvThreads, operand_blocks<T, kVec>())
    conv_operands(Args args, PrefillWorkspace workspace, int width) {
  const Shape& shape = args.shape;
  const ConvTile tile = conv_tile(args, kOperandTokens);
  const int warps = segment_warps(shape, width, kVec), blocks = divide_up(warps, kSegmentWarps);
  const int block = static_cast<int>(blockIdx.x);
  if (block >= blocks) return write_dt_of_block<T>(args, workspace, tile, block - blocks);
  const SegmentPlace place(shape, width, kVec, block * kSegmentWarps + static_cast<int>(threadIdx.x) / kWarp);
  const int offset = place.lane() * kVec;
  const bool exists = offset < place.channels;
  const ConvView<T, kVec> view(args, workspace, tile.b, place.channel + (exists ? offset : 0));
  if (tile.begin == 0 && exists) write_conv_state(view, tile.length);
  if (tile.begin >= tile.end) return;
  const OperandRows rows(args, workspace, tile.b, place.channel, place.channels);
  const bool filled = exists && fills(place, rows, place.lane());
  SegmentConvolution<Operand, T, kVec> segment = {
      view, rows.pairs(tile.begin) + offset / 2, rows.pitch, rows.count, SegmentMaximum<kVec>(place), offset, tile.end,
      exists, filled, {}};
  segment.run(tile.begin);
}

}  // namespace elastic::mamba2
