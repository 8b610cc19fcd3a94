// The convolution of conv_prefill, its results as operands for tensor cores: see operand_rows.cuh.
//
// Grid (segment blocks + head blocks, token tiles, B). Neighbouring lanes of a warp own one segment of at most 128
// channels, kVec a lane, and so find the segment's unit of each token among themselves: a whole warp with four channels a
// lane, or half of one with eight, for which a token's overhead is paid half as often. Lanes past the segment's end add
// zeros.
#pragma once

#include "conv_prefill.cuh"
#include "operand_rows.cuh"

namespace elastic::mamba2 {

constexpr int kSegmentChannels = 128;
static_assert(kSegmentChannels >= kMaxChunkState && kSegmentChannels >= kMaxChunkHeadDim);
ELASTIC_HD constexpr int segment_lanes(int vec) { return kSegmentChannels / vec; }
ELASTIC_HD constexpr int segments_per_block(int vec) { return kConvThreads / segment_lanes(vec); }

struct Segment {
  int channel, channels;
};

// Segments of a token: those of x, `width` channels each but for a head's last, then B of each group, then C.
ELASTIC_HD int segments(const Shape& shape, int width) {
  return divide_up(shape.head_dim, width) * shape.heads + 2 * shape.groups;
}
ELASTIC_D Segment segment_at(const Shape& shape, int width, int i) {
  const int tiles = divide_up(shape.head_dim, width), of_x = tiles * shape.heads;
  if (i >= of_x) return {inner_channels(shape) + (i - of_x) * shape.state_size, shape.state_size};
  const int first = i % tiles * width, left = shape.head_dim - first;
  return {i / tiles * shape.head_dim + first, left < width ? left : width};
}

// The largest magnitude of the segment's values.
template <int kVec>
ELASTIC_D float largest_of_segment(const Pack<float, kVec>& values) {
  float most = 0.f;
  ELASTIC_UNROLL
  for (int v = 0; v < kVec; ++v) most = fmaxf(most, fabsf(values.at[v]));
  ELASTIC_UNROLL
  for (int mask = segment_lanes(kVec) / 2; mask > 0; mask /= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, mask));
  return most;
}

// Tokens [begin, end) of one segment.
template <typename Operand, typename T, int kVec>
ELASTIC_D void convolve_segment(const ConvView<T, kVec>& view, const OperandRows& rows, bool exists, int begin,
                                int end) {
  const int lane = static_cast<int>(threadIdx.x) % segment_lanes(kVec), channel = lane * kVec;
  ConvWindow<T, kVec, 4> window;
  window.start(view, begin);
  for (int first = begin; first < end; first += kConvBatch) {
    Pack<T, kVec> batch[kConvBatch];
    ELASTIC_UNROLL
    for (int i = 0; i < kConvBatch; ++i) batch[i] = view.token(first + i < end ? first + i : end - 1);
    ELASTIC_UNROLL
    for (int i = 0; i < kConvBatch; ++i) {
      window.set(3, batch[i]);
      const Pack<float, kVec> values = exists ? window.value() : Pack<float, kVec>{};
      window.slide();
      const float unit = power_of_two_above(largest_of_segment(values)), inverse = inverse_power(unit);
      if (first + i >= end) continue;
      Pack<Operand, kVec> operands;
      ELASTIC_UNROLL
      for (int v = 0; v < kVec; ++v) operands.at[v] = from_float<Operand>(values.at[v] * inverse);
      if (channel < rows.count) store_pack(rows.template operands<Operand>(first + i) + channel, operands);
      if (lane == 0 && exists) *rows.unit(first + i) = unit;
    }
  }
}

// width: channels of a head that a block of chunk_prefill has.
template <typename T, typename Operand, int kVec>
__global__ void __launch_bounds__(kConvThreads, kVec == 4 ? 5 : 3)
    conv_operands(Args args, PrefillWorkspace workspace, int width) {
  constexpr int kLanes = segment_lanes(kVec), kSegments = segments_per_block(kVec);
  const Shape& shape = args.shape;
  const ConvTile tile = conv_tile(args);
  const int all = segments(shape, width), blocks = divide_up(all, kSegments);
  const int block = static_cast<int>(blockIdx.x);
  if (block >= blocks) return write_dt_of_block<T>(args, workspace, tile, block - blocks);
  // Lanes of a warp stay together: past the last segment they convolve it again, and store nothing.
  const int i = block * kSegments + static_cast<int>(threadIdx.x) / kLanes;
  const Segment segment = segment_at(shape, width, i < all ? i : all - 1);
  const int offset = static_cast<int>(threadIdx.x) % kLanes * kVec;
  const bool exists = i < all && offset < segment.channels;
  const ConvView<T, kVec> view(args, workspace, tile.b, segment.channel + (exists ? offset : 0));
  if (tile.begin == 0 && exists) write_conv_state(view, tile.length);
  if (tile.begin >= tile.end) return;
  const OperandRows rows(args, workspace, tile.b, segment.channel, i < all ? segment.channels : 0);
  convolve_segment<Operand>(view, rows, exists, tile.begin, tile.end);
}

}  // namespace elastic::mamba2
