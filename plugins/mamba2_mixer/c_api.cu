#include "elastic_mamba2.h"

#include <string>

#include "../common/abi.h"
#include "launch.h"
#include "select.h"

namespace elastic::mamba2 {
namespace {

constexpr std::uintptr_t kAlignment = 16;  // of every tensor: kernels use accesses of that width

thread_local std::string last_error;

int32_t refuse(std::string text) {
  last_error = std::move(text);
  return ELASTIC_REFUSED;
}

std::string check_types(const Args& args) {
  if (args.activation < ELASTIC_FLOAT32 || args.activation > ELASTIC_BFLOAT16)
    return "Mamba2Mixer: activation type: expected 0, 1 or 2, found " + std::to_string(args.activation);
  if (args.head_param != ELASTIC_FLOAT32 && args.head_param != args.activation)
    return "Mamba2Mixer: type of A_log, D, dt_bias: expected float32 or the activations' " +
           std::to_string(args.activation) + ", found " + std::to_string(args.head_param);
  return "";
}

std::string check_pointers(const Args& a, const ElasticMamba2Plan& plan) {
  struct Named {
    const char* name;
    const void* pointer;
  };
  const Named all[] = {{"projected", a.projected},
                       {"conv_weight", a.conv_weight},
                       {"conv_bias", a.conv_bias},
                       {"A_log", a.a_log},
                       {"D", a.d},
                       {"dt_bias", a.dt_bias},
                       {"norm_weight", a.norm_weight},
                       {"length", a.length},
                       {"conv_state", a.conv_state},
                       {"ssm_state", a.ssm_state},
                       {"y", a.y},
                       {"conv_state_out", a.conv_state_out},
                       {"ssm_state_out", a.ssm_state_out},
                       {"workspace", a.workspace}};
  for (const Named& tensor : all)
    if (!tensor.pointer || reinterpret_cast<std::uintptr_t>(tensor.pointer) % kAlignment)
      return std::string("Mamba2Mixer: ") + tensor.name +
             ": expected a 16-byte aligned device pointer, found " +
             (tensor.pointer ? "an unaligned one" : "null");
  if (plan.counters > 0 && !a.counters) return "Mamba2Mixer: counters: expected a device pointer, found null";
  if (a.conv_state == a.conv_state_out)
    return "Mamba2Mixer: conv_state_out: expected another buffer than conv_state, found the same";
  return "";
}

// A plan made for another shape would read and write past the buffers.
std::string check_plan(const Args& args, const ElasticMamba2Plan& plan) {
  ElasticMamba2Plan fresh;
  std::string fault = make_plan(args.shape, kernel_name(plan.kernel), 1, &fresh);
  if (!fault.empty()) return fault;
  const bool same = fresh.workspace_bytes == plan.workspace_bytes && fresh.counters == plan.counters &&
                    fresh.vector_state == plan.vector_state && fresh.vector_conv == plan.vector_conv &&
                    fresh.vector_scan == plan.vector_scan && fresh.wide_state == plan.wide_state;
  const bool passes = plan.kernel != ELASTIC_MAMBA2_DECODE_STEP || plan.passes >= 1;
  return same && passes ? "" : "Mamba2Mixer: plan: expected one made for this shape, found another";
}

Outcome dispatch(const Args& args, const ElasticMamba2Plan& plan, cudaStream_t stream) {
#if !defined(ELASTIC_FLOAT32_ONLY)  // host tests of broken kernels build one type
  if (args.activation == ELASTIC_FLOAT16) return launch_mixer<float16>(args, plan, stream);
  if (args.activation == ELASTIC_BFLOAT16) return launch_mixer<bfloat16>(args, plan, stream);
#endif
  return launch_mixer<float>(args, plan, stream);
}

int32_t ask_multiprocessors(int* count) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) return ELASTIC_OK;
  last_error =
      std::string("Mamba2Mixer: multiprocessors of the current device: ") + cudaGetErrorString(error);
  return ELASTIC_LAUNCH_FAILED;
}

}  // namespace
}  // namespace elastic::mamba2

using namespace elastic::mamba2;

extern "C" int32_t elastic_mamba2_plan(const ElasticMamba2Shape* shape, const char* kernel,
                                       int32_t multiprocessors, ElasticMamba2Plan* plan) {
  if (!shape || !kernel || !plan)
    return refuse("elastic_mamba2_plan: expected shape, kernel and plan, found null");
  int count = multiprocessors;
  if (count == 0)
    if (const int32_t status = ask_multiprocessors(&count)) return status;
  std::string fault = make_plan(*shape, kernel, count, plan);
  return fault.empty() ? ELASTIC_OK : refuse(std::move(fault));
}

extern "C" int32_t elastic_mamba2_enqueue(const ElasticMamba2Args* args, const ElasticMamba2Plan* plan,
                                          void* stream) {
  if (!args || !plan) return refuse("elastic_mamba2_enqueue: expected args and plan, found null");
  std::string fault = check_types(*args);
  if (fault.empty()) fault = check_plan(*args, *plan);
  if (fault.empty()) fault = check_pointers(*args, *plan);
  if (!fault.empty()) return refuse(std::move(fault));
  const Outcome outcome = dispatch(*args, *plan, static_cast<cudaStream_t>(stream));
  if (outcome.error == cudaSuccess) return ELASTIC_OK;
  last_error =
      std::string("Mamba2Mixer: launch of ") + outcome.kernel + ": " + cudaGetErrorString(outcome.error);
  return ELASTIC_LAUNCH_FAILED;
}

extern "C" const char* elastic_last_error(void) { return last_error.c_str(); }
