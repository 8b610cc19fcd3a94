#include "ort/onnx_api.h"

#include "elastic_runtime/error.h"
#include "files.h"
#include "ort/no_cuda.h"
#include "ort/onnx_memory.h"

namespace elastic::onnx {

const OrtApi& api() {
  static const OrtApi* const found = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (!found) {
    throw BuildError("onnxruntime", "version 1." + std::to_string(ORT_API_VERSION) + " or later",
                     OrtGetApiBase()->GetVersionString(),
                     "install the version of the headers that were compiled");
  }
  return *found;
}

namespace {

/// What a refusal says; the status goes.
std::string message_of(OrtStatus* status) {
  const std::string message = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  return message;
}

}  // namespace

void check(OrtStatus* status) {
  if (status) throw BuildError("onnxruntime", "the model to run", message_of(status));
}

Model::Model(const std::filesystem::path& path, int threads, const Memory& place) {
  OrtEnv* env = nullptr;
  check(api().CreateEnv(ORT_LOGGING_LEVEL_ERROR, "elastic_runtime", &env));
  env_.reset(env);
  OrtSessionOptions* made = nullptr;
  check(api().CreateSessionOptions(&made));
  const Owned<OrtSessionOptions> options(made);
  if (threads > 0) check(api().SetIntraOpNumThreads(options.get(), threads));
  place.add_provider(options.get());
  OrtSession* session = nullptr;
  OrtStatus* const status = api().CreateSession(env_.get(), path.c_str(), options.get(), &session);
  if (status) {
    const std::string message = message_of(status);
    // On a card its provider did not start, as far as one can tell.
    if (!place.is_host()) fail_without_cuda("a refusal: " + message);
    throw BuildError("onnxruntime", "to run " + path_text(path), message,
                     "update onnxruntime, or make the file anew");
  }
  session_.reset(session);
  OrtMemoryInfo* memory = nullptr;
  check(api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
  memory_.reset(memory);
  std::size_t inputs = 0, outputs = 0;
  check(api().SessionGetInputCount(session, &inputs));
  check(api().SessionGetOutputCount(session, &outputs));
  for (std::size_t i = 0; i < inputs; ++i) inputs_.push_back(port(i, true));
  for (std::size_t i = 0; i < outputs; ++i) outputs_.push_back(port(i, false));
}

Port Model::port(std::size_t index, bool is_input) const {
  OrtAllocator* allocator = nullptr;
  check(api().GetAllocatorWithDefaultOptions(&allocator));
  Port port;
  char* name = nullptr;
  check((is_input ? api().SessionGetInputName : api().SessionGetOutputName)(session_.get(), index, allocator,
                                                                            &name));
  port.name = name;
  check(api().AllocatorFree(allocator, name));
  OrtTypeInfo* made = nullptr;
  check((is_input ? api().SessionGetInputTypeInfo : api().SessionGetOutputTypeInfo)(session_.get(), index,
                                                                                    &made));
  const Owned<OrtTypeInfo> type(made);
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  check(api().CastTypeInfoToTensorInfo(type.get(), &tensor));
  if (!tensor) throw InputError("model input " + port.name, "a tensor", "another type");
  std::size_t axes = 0;
  check(api().GetTensorElementType(tensor, &port.type));
  check(api().GetDimensionsCount(tensor, &axes));
  port.shape.resize(axes);
  std::vector<const char*> symbols(axes);
  check(api().GetDimensions(tensor, port.shape.data(), axes));
  check(api().GetSymbolicDimensions(tensor, symbols.data(), axes));
  port.symbols.assign(symbols.begin(), symbols.end());
  return port;
}

Owned<OrtValue> Model::tensor(const void* data, std::size_t bytes, const std::vector<std::int64_t>& shape,
                              ONNXTensorElementDataType type, const OrtMemoryInfo* where) const {
  OrtValue* value = nullptr;
  check(api().CreateTensorWithDataAsOrtValue(where ? where : memory_.get(), const_cast<void*>(data), bytes,
                                             shape.data(), shape.size(), type, &value));
  return Owned<OrtValue>(value);
}

std::size_t element_size(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return 8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return 4;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
      return 2;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return 1;
    default:
      return 0;
  }
}

ONNXTensorElementDataType type_of(const std::string& stored) {
  if (stored == "bf16") return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
  if (stored == "fp16") return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  if (stored == "fp32") return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  return stored == "int8" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

}  // namespace elastic::onnx
