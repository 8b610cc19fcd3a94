#include "elastic_mamba2.h"

#include <string>

#include "../common/last_error.h"
#include "launch.h"
#include "select.h"

namespace elastic::mamba2 {
namespace {

constexpr std::uintptr_t kAlignment = 16;  // of every tensor: kernels use accesses of that width

int32_t refuse(std::string text) {
  set_last_error(std::move(text));
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

std::string check_pointers(const Args& a, ElasticMamba2Kernel kernel) {
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
      return std::string("Mamba2Mixer: ") + tensor.name + ": expected a 16-byte aligned device pointer, found " +
             (tensor.pointer ? "an unaligned one" : "null");
  if (kernel == ELASTIC_MAMBA2_DECODE_STEP && !a.counters)
    return "Mamba2Mixer: counters: expected a device pointer, found null";
  if (a.conv_state == a.conv_state_out)
    return "Mamba2Mixer: conv_state_out: expected another buffer than conv_state, found the same";
  return "";
}

Outcome dispatch(const Args& args, ElasticMamba2Kernel kernel, cudaStream_t stream) {
#if !defined(ELASTIC_FLOAT32_ONLY)  // host tests of broken kernels build one type
  if (args.activation == ELASTIC_FLOAT16) return launch_mixer<float16>(args, kernel, stream);
  if (args.activation == ELASTIC_BFLOAT16) return launch_mixer<bfloat16>(args, kernel, stream);
#endif
  return launch_mixer<float>(args, kernel, stream);
}

int32_t fail(const char* what, cudaError_t error) {
  set_last_error(std::string("Mamba2Mixer: ") + what + ": " + cudaGetErrorString(error));
  return ELASTIC_LAUNCH_FAILED;
}

cudaError_t ask(cudaDeviceAttr what, int* value) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return error == cudaSuccess ? cudaDeviceGetAttribute(value, what, device) : error;
}

}  // namespace
}  // namespace elastic::mamba2

using namespace elastic::mamba2;

extern "C" int32_t elastic_mamba2_requirements(const ElasticMamba2Shape* shape,
                                               ElasticMamba2Requirements* requirements) {
  if (!shape || !requirements)
    return refuse("elastic_mamba2_requirements: expected shape and requirements, found null");
  std::string fault = check_shape(*shape);
  if (!fault.empty()) return refuse(std::move(fault));
  *requirements = requirements_of(*shape);
  return ELASTIC_OK;
}

extern "C" int32_t elastic_mamba2_enqueue(const ElasticMamba2Args* given, int32_t asked, void* stream) {
  if (!given) return refuse("elastic_mamba2_enqueue: expected args, found null");
  Args args = *given;
  std::string fault = check_shape(args.shape);
  if (fault.empty()) fault = check_types(args);
  if (!fault.empty()) return refuse(std::move(fault));
  Call call = {args.shape, args.activation, 0};
  if (const cudaError_t error = ask(cudaDevAttrComputeCapabilityMajor, &call.capability))
    return fail("compute capability of the current device", error);
  ElasticMamba2Kernel kernel = ELASTIC_MAMBA2_AUTO;
  fault = choose_kernel(call, asked, &kernel);
  if (fault.empty()) fault = check_pointers(args, kernel);
  if (!fault.empty()) return refuse(std::move(fault));
  if (args.multiprocessors < 1)
    if (const cudaError_t error = ask(cudaDevAttrMultiProcessorCount, &args.multiprocessors))
      return fail("multiprocessors of the current device", error);
  const Outcome outcome = dispatch(args, kernel, static_cast<cudaStream_t>(stream));
  if (outcome.error == cudaSuccess) return ELASTIC_OK;
  return fail((std::string("launch of ") + outcome.kernel).c_str(), outcome.error);
}
