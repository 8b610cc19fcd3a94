// What the kernels can take, and the memory that a call needs: for kernels, launchers, the TensorRT glue, and
// Python, which reads the constants that contract.json names and the formula (elastic_export/ops/kernel_limits.py).
#pragma once

#include <cstdint>

namespace elastic::mamba2 {

constexpr int kMaxState = 256;
constexpr int kMaxHeadDim = 256;
constexpr int kMinTaps = 2;
constexpr int kMaxTaps = 8;

constexpr int kDecodeTaps = 4;   // decode_step has this width of the convolution only, the model family's
constexpr int kDecodeRows = 16;  // rows of a head that a block of decode_step holds at a time
constexpr int kConvTokens = 16;  // a tile of conv_prefill: K-1 tokens are read twice

constexpr int kChunk = 64;           // tokens that chunk_prefill takes at a time
constexpr int kMinChunkTokens = 48;  // of a call: fewer are quicker one by one
constexpr int kMaxChunkState = 128;
constexpr int kMaxChunkHeadDim = 128;

constexpr int kMaxGridAxis = 65535;  // of the second and third axis
constexpr int kMaxBatch = kMaxGridAxis;
constexpr int kMaxGroups = 65535;  // of no axis; with T they are one of the first axis, which select.cpp checks
constexpr int kMaxTokens = kMaxGridAxis * kConvTokens;

// Floats of scratch memory of a call, whichever kernel runs: x|B|C [B, T, dc] and dt [B, H, T] of a prefill, of which
// decode_step uses a part.
constexpr int64_t workspace_floats(int64_t B, int64_t T, int64_t H, int64_t dc) { return B * T * dc + B * T * H; }

}  // namespace elastic::mamba2
