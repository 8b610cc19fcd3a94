#include <string>

#include "../common/last_error.h"
#include "launch.h"
#include "select.h"

namespace elastic::attention {
namespace {

constexpr std::uintptr_t kAlignment = 16;  // of every tensor: kernels use accesses of that width

int32_t refuse(std::string text) {
  set_last_error(std::move(text));
  return ELASTIC_REFUSED;
}

std::string check_type(const Args& args) {
  if (args.dtype == ELASTIC_FLOAT16 || args.dtype == ELASTIC_BFLOAT16) return "";
  return "CachedAttention: type: expected 1 (float16) or 2 (bfloat16), found " + std::to_string(args.dtype);
}

std::string check_pointers(const Args& a) {
  struct Named {
    const char* name;
    const void* pointer;
  };
  const Named all[] = {{"query", a.query},         {"key", a.key},
                       {"value", a.value},         {"position", a.position},
                       {"key_cache", a.key_cache}, {"value_cache", a.value_cache},
                       {"y", a.y},                 {"workspace", a.workspace}};
  for (const Named& tensor : all)
    if (!tensor.pointer || reinterpret_cast<std::uintptr_t>(tensor.pointer) % kAlignment)
      return std::string("CachedAttention: ") + tensor.name + ": expected a 16-byte aligned device pointer, found " +
             (tensor.pointer ? "an unaligned one" : "null");
  return "";
}

Outcome dispatch(const Args& args, ElasticAttentionKernel kernel, cudaStream_t stream) {
#if !defined(ELASTIC_FLOAT16_ONLY)  // host tests of broken kernels build one type
  if (args.dtype == ELASTIC_BFLOAT16) return launch_attention<bfloat16>(args, kernel, stream);
#endif
  return launch_attention<float16>(args, kernel, stream);
}

int32_t fail(const char* what, cudaError_t error) {
  set_last_error(std::string("CachedAttention: ") + what + ": " + cudaGetErrorString(error));
  return ELASTIC_LAUNCH_FAILED;
}

cudaError_t ask_device(int* multiprocessors, int* capability) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(capability, cudaDevAttrComputeCapabilityMajor, device);
  return error;
}

}  // namespace
}  // namespace elastic::attention

using namespace elastic::attention;

extern "C" int32_t elastic_attention_requirements(const ElasticAttentionShape* shape,
                                                  ElasticAttentionRequirements* requirements) {
  if (!shape || !requirements)
    return refuse("elastic_attention_requirements: expected shape and requirements, found null");
  std::string fault = check_shape(*shape);
  if (!fault.empty()) return refuse(std::move(fault));
  *requirements = requirements_of(*shape);
  return ELASTIC_OK;
}

extern "C" int32_t elastic_attention_enqueue(const ElasticAttentionArgs* given, int32_t asked, void* stream) {
  if (!given) return refuse("elastic_attention_enqueue: expected args, found null");
  Args args = *given;
  ElasticAttentionKernel kernel = ELASTIC_ATTENTION_AUTO;
  std::string fault = check_shape(args.shape);
  if (fault.empty()) fault = choose_kernel(args.shape, asked, &kernel);
  if (fault.empty()) fault = check_type(args);
  if (fault.empty()) fault = check_scale(args.scale);
  if (fault.empty()) fault = check_pointers(args);
  if (!fault.empty()) return refuse(std::move(fault));
  int multiprocessors = 0, capability = 0;
  if (const cudaError_t error = ask_device(&multiprocessors, &capability))
    return fail("the current device", error);
  fault = check_capability(capability, args);
  if (!fault.empty()) return refuse(std::move(fault));
  if (args.multiprocessors < 1) args.multiprocessors = multiprocessors;
  const Outcome outcome = dispatch(args, kernel, static_cast<cudaStream_t>(stream));
  if (outcome.error == cudaSuccess) return ELASTIC_OK;
  return fail((std::string("launch of ") + outcome.kernel).c_str(), outcome.error);
}
