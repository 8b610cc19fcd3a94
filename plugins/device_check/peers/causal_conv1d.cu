// causal-conv1d's two kernels in BF16 as C functions, without PyTorch: what its headers want of c10 stands beside this.
#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "causal_conv1d_fwd.cu"
#include "causal_conv1d_update.cu"

#define PEER extern "C" __attribute__((visibility("default"))) int

namespace {
ConvParamsBase common(void* x, void* weight, void* bias, void* out, int batch, int channels, int tokens, uint32_t x_row,
                      uint32_t out_row) {
  ConvParamsBase p = {};
  p.batch = batch;
  p.dim = channels;
  p.seqlen = tokens;
  p.width = 4;
  p.silu_activation = true;
  p.x_ptr = x;
  p.weight_ptr = weight;
  p.bias_ptr = bias;
  p.out_ptr = out;
  p.x_batch_stride = x_row * tokens;
  p.out_batch_stride = out_row * tokens;
  p.x_l_stride = x_row;
  p.out_l_stride = out_row;
  p.x_c_stride = p.out_c_stride = 1;
  p.weight_c_stride = 4;
  p.weight_width_stride = 1;
  return p;
}
}  // namespace

// x [batch, tokens, channels] with rows x_row apart, weight [channels, 4]; state [batch, 3, channels] is read, then
// written. 0, or CUDA's error.
PEER peer_causal_conv1d_fwd(void* x, void* weight, void* bias, void* state_in, void* state_out, void* out, int batch,
                            int channels, int tokens, uint32_t x_row, cudaStream_t stream) {
  ConvParamsBase p = common(x, weight, bias, out, batch, channels, tokens, x_row, channels);
  p.initial_states_ptr = state_in;
  p.final_states_ptr = state_out;
  p.initial_states_batch_stride = p.final_states_batch_stride = 3 * channels;
  p.initial_states_l_stride = p.final_states_l_stride = channels;
  p.initial_states_c_stride = p.final_states_c_stride = 1;
  causal_conv1d_channellast_fwd_cuda<at::BFloat16, at::BFloat16>(p, stream);
  return static_cast<int>(cudaGetLastError());
}

// One token of each row; state [batch, 3, channels] in place.
PEER peer_causal_conv1d_update(void* x, void* weight, void* bias, void* state, void* out, int batch, int channels,
                               uint32_t x_row, cudaStream_t stream) {
  ConvParamsBase p = common(x, weight, bias, out, batch, channels, 1, x_row, channels);
  p.conv_state_ptr = state;
  p.conv_state_len = 3;
  p.conv_state_batch_stride = 3 * channels;
  p.conv_state_l_stride = channels;
  p.conv_state_c_stride = 1;
  causal_conv1d_update_cuda<at::BFloat16, at::BFloat16>(p, stream);
  return static_cast<int>(cudaGetLastError());
}
