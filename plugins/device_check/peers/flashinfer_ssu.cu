// FlashInfer's selective_state_update for the shape of Nemotron-Nano-12B-v2, as a C function: BF16 activations, FP32
// state.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstdio>
#include <exception>

using state_t = float;
using input_t = __nv_bfloat16;
using weight_t = __nv_bfloat16;
using matrixA_t = float;
using stateIndex_t = int32_t;
using cuSeqlensIndex_t = int32_t;
using numAcceptedIndex_t = int32_t;
using state_scale_t = void;
constexpr int DIM = 80;
constexpr int DSTATE = 128;
constexpr int NTOKENS_MTP = 1;
constexpr int PHILOX_ROUNDS = 0;

#include <flashinfer/mamba/selective_state_update.cuh>

// state [batch, heads, 80, 128] in place; x and output [batch, heads, 80], B and C [batch, groups, 128], dt
// [batch, heads], rows as far apart as the strides say; A (negative), D and dt_bias [heads]. algorithm: 1 simple,
// 2 vertical.
// 0, or 1 and words on stderr.
extern "C" __attribute__((visibility("default"))) int peer_flashinfer_ssu(
    void* state, void* x, void* dt, void* dt_bias, void* A, void* B, void* C, void* D, void* output, int batch,
    int heads, int groups, int64_t x_stride, int64_t dt_stride, int64_t B_stride, int64_t C_stride,
    int64_t output_stride, int algorithm, cudaStream_t stream) {
  flashinfer::mamba::SelectiveStateUpdateParams p;
  p.batch = p.state_cache_size = batch;
  p.nheads = heads;
  p.dim = DIM;
  p.dstate = DSTATE;
  p.ngroups = groups;
  p.pad_slot_id = -1;
  p.x_stride_batch = x_stride;
  p.dt_stride_batch = dt_stride;
  p.B_stride_batch = B_stride;
  p.C_stride_batch = C_stride;
  p.out_stride_batch = output_stride;
  p.state_stride_batch = int64_t{heads} * DIM * DSTATE;
  p.state = state;
  p.x = x;
  p.dt = dt;
  p.dt_bias = dt_bias;
  p.A = A;
  p.B = B;
  p.C = C;
  p.D = D;
  p.output = output;
  p.dt_softplus = true;
  try {
    flashinfer::mamba::invokeSelectiveStateUpdate<input_t, weight_t, matrixA_t, state_t, stateIndex_t, state_scale_t>(
        p, static_cast<flashinfer::mamba::SSUAlgorithm>(algorithm), stream);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "flashinfer: %s\n", error.what());
    return 1;
  }
  return cudaGetLastError() == cudaSuccess ? 0 : 1;
}
