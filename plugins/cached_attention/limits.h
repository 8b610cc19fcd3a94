// What the kernels can take, and the memory that a call needs: for kernels, launchers, the TensorRT glue, and
// Python, which reads the constants that contract.json names and the formula (elastic_export/ops/kernel_limits.py).
#pragma once

#include <cstdint>

namespace elastic::attention {

constexpr int kHeadDimStep = 8;  // a head's elements are whole 16-byte pieces
constexpr int kMaxHeadDim = 256;

constexpr int kMaxGridAxis = 65535;  // of the second and third axis
constexpr int kMaxBatch = kMaxGridAxis;
constexpr int kMaxKeyValueHeads = kMaxGridAxis;
constexpr int kMaxContext = 1073741824;  // 2^30: a row's index plus a call's tokens is still an int32
constexpr int kMaxTokens = 1048576;      // 2^20

constexpr int kDecodeRows = 16;   // of a tile: a product's own, and
constexpr int kPrefillRows = 64;  // those of four warps

constexpr int kMaxSplits = 128;  // of the cache rows; merge.cuh keeps a number for each in shared memory

// Rows of partial results that a call may have: splits * tiles * rows of a tile. A call that has more without any split
// needs none, for its blocks write y themselves.
constexpr int kMaxPartRows = 32768;

// Floats of scratch memory of a call, whichever kernel runs it, R being kMaxPartRows: a bound, so that it does not
// depend on the card. Each row has D sums, their greatest score and the sum of their weights.
constexpr int64_t workspace_floats(int64_t R, int64_t D) { return R * D + 2 * R; }

}  // namespace elastic::attention
