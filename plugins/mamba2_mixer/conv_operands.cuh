// The convolution of conv_prefill, its results as operands for tensor cores: see operand_rows.cuh.
//
// Grid (segment blocks + head blocks, token tiles, B). Neighbouring lanes of a warp own one segment of at most 128
// channels, kVec a lane, and so find the segment's unit of each token among themselves. A warp has as many segments as
// it has room for, all of x or all of B and C: with eight channels a lane three heads of 80, which leave two lanes
// idle. While two tokens are computed the six after them are on their way.
#pragma once

#include "conv_prefill.cuh"
#include "operand_rows.cuh"

namespace elastic::mamba2 {

constexpr int kSegmentChannels = 128;
static_assert(kSegmentChannels >= kMaxChunkState && kSegmentChannels >= kMaxChunkHeadDim);
constexpr int kSegmentWarps = kConvThreads / kWarp;  // of a block
constexpr int kOperandTokens = 32;                   // a tile: the weights are read once for it, and K-1 tokens again
constexpr int kOperandRing = 8;                      // tokens of a lane that are on their way
static_assert(kOperandTokens % kOperandRing == 0, "a tile is whole rounds");
constexpr int kOperandBlocks = 4;  // a multiprocessor: as many as leave enough registers to spill none

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

// Whether a lane of a segment writes one of the pieces of 16 bytes, the unit and zeros, that stand behind its operands:
// as many lanes as there are pieces to the end of 32 bytes, none where that end is past the segment's place.
ELASTIC_D bool fills(const SegmentPlace& place, const OperandRows& rows, int lane) {
  const int bytes = 2 * rows.count, end = (bytes / 32 + 1) * 32;
  return 16 * lane < end - bytes && end <= static_cast<int>(sizeof(float)) * place.channels;
}

// One segment's tokens on their way to operands. A lane's tokens come by a ring of its own in shared memory, which no
// other lane reads: no registers wait for them, and nothing but the lane's own copies has to be waited for.
template <typename Operand, typename T, int kVec>
class SegmentConvolution {
 public:
  // In words: elements by themselves would take a register each.
  static constexpr int kWords = kVec * static_cast<int>(sizeof(T)) / 4;
  using Piece = Pack<uint32_t, kWords>;
  static constexpr int kRing = kOperandRing * kConvThreads;  // pieces of a block

  ELASTIC_D SegmentConvolution(const ConvView<T, kVec>& conv, const SegmentPlace& place, const OperandRows& rows,
                               const ConvTile& tile, Piece* pieces)
      : view(conv),
        next(conv.address(tile.begin)),
        ring(pieces + threadIdx.x),
        channel(place.lane() * kVec),
        end(tile.end),
        pairs(rows.pairs(tile.begin) + channel / 2),
        pitch(rows.pitch),
        count(rows.count),
        exists(channel < place.channels),
        filled(exists && fills(place, rows, place.lane())),
        alone(exists && !filled && channel == 0),
        behind(count / 2 + (channel == 0 ? 0 : 4 - kVec / 2)),
        largest_of_segment(place) {}

  ELASTIC_D void run(int begin) {
    ELASTIC_UNROLL
    for (int i = 0; i < kOperandRing; i += 2) copy(i, begin + i);
    window.start(view, begin);
    for (int first = begin; first < end; first += kOperandRing) {
      ELASTIC_UNROLL
      for (int i = 0; i < kOperandRing; i += 2) {
        wait_async<kOperandRing / 2 - 1>();
        convolve(i, first + i);
        copy(i, first + i + kOperandRing);
      }
    }
    wait_async<0>();  // zeros past the end: none may land in shared memory that another block has by then
  }

 private:
  ConvView<T, kVec> view;
  const T* next;       // what the lane copies next
  Piece* ring;         // its first piece
  int channel, end;    // in the segment; of the tokens
  uint32_t* pairs;     // where the lane's operands of the next token go
  int pitch, count;    // from token to token; the segment's operands, padding included
  bool exists;         // the lane has channels
  bool filled, alone;  // and writes the unit: with zeros behind it in 16 bytes, or by itself
  int behind;          // from the lane's operands to there
  SegmentMaximum<kVec> largest_of_segment;
  ConvWindow<T, kVec, 4> window;

  ELASTIC_D Piece* slot(int i) const { return ring + i * kConvThreads; }
  // Starts the copies of the next two tokens, `first` and the one after it; zeros of what is not there.
  ELASTIC_D void copy(int i, int first) {
    ELASTIC_UNROLL
    for (int t = 0; t < 2; ++t, next += view.pitch)
      copy_async_or_zero<sizeof(Piece)>(slot(i + t), next, exists && first + t < end);
    commit_async();
  }
  // Of two tokens, whose shuffles and quick functions do not wait for each other. No branch stands between them and the
  // stores.
  ELASTIC_D void convolve(int i, int first) {
    Pack<float, kVec> values[2];
    ELASTIC_UNROLL
    for (int t = 0; t < 2; ++t) {
      window.set_words(3, *slot(i + t));
      values[t] = activated(window.sum());
      window.slide();
    }
    const float largest[2] = {largest_of_segment(values[0], exists), largest_of_segment(values[1], exists)};
    ELASTIC_UNROLL
    for (int t = 0; t < 2; ++t, pairs += pitch) store(values[t], power_of_two_above(largest[t]), first + t < end);
  }
  ELASTIC_D void store(const Pack<float, kVec>& values, float unit, bool real) const {
    const float inverse = inverse_power(unit);
    Pack<uint32_t, kVec / 2> operands;
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; v += 2)
      operands.at[v / 2] = exists ? pack_pair<Operand>(values.at[v] * inverse, values.at[v + 1] * inverse) : 0u;
    if (real && channel < count) store_pack(pairs, operands);
    if (real && filled) store_pack(pairs + behind, Pack<uint32_t, 4>{{bits_of_float(unit)}});
    if (real && alone) pairs[behind] = bits_of_float(unit);
  }
  ELASTIC_D static Pack<float, kVec> activated(Pack<float, kVec> values) {
    ELASTIC_UNROLL
    for (int v = 0; v < kVec; ++v) values.at[v] = quick_silu(values.at[v]);
    return values;
  }
};

// width: channels of a head that a block of chunk_prefill has.
template <typename T, typename Operand, int kVec>
__global__ void __launch_bounds__(kConvThreads, kOperandBlocks)
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
  using Segment = SegmentConvolution<Operand, T, kVec>;
  using Piece = typename Segment::Piece;
  ELASTIC_SHARED(Piece, pieces, Segment::kRing);
  Segment segment(view, place, rows, tile, pieces);
  segment.run(tile.begin);
}

}  // namespace elastic::mamba2
