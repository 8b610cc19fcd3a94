// onnxruntime's C interface with owners and exceptions. Private to the library.
#pragma once

#include <onnxruntime_c_api.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace elastic::onnx {

const OrtApi& api();

/// Throws BuildError with onnxruntime's words.
void check(OrtStatus* status);

struct Release {
  void operator()(OrtEnv* value) const { api().ReleaseEnv(value); }
  void operator()(OrtSession* value) const { api().ReleaseSession(value); }
  void operator()(OrtSessionOptions* value) const { api().ReleaseSessionOptions(value); }
  void operator()(OrtMemoryInfo* value) const { api().ReleaseMemoryInfo(value); }
  void operator()(OrtValue* value) const { api().ReleaseValue(value); }
  void operator()(OrtTypeInfo* value) const { api().ReleaseTypeInfo(value); }
};
template <typename T>
using Owned = std::unique_ptr<T, Release>;

/// An input or output of a model; symbolic dimensions have size -1 and their name.
struct Port {
  std::string name;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::vector<std::int64_t> shape;
  std::vector<std::string> symbols;
};

class Memory;

/// A model, loaded for a place; its three token inputs and its logits are in main memory wherever that is.
class Model {
 public:
  /// Throws UnavailableError where onnxruntime does not start on a card, BuildError about a model that it
  /// does not take.
  Model(const std::filesystem::path& path, int threads, const Memory& place);

  const std::vector<Port>& inputs() const { return inputs_; }
  const std::vector<Port>& outputs() const { return outputs_; }
  OrtSession* session() const { return session_.get(); }

  /// A tensor over memory of the caller, which is main memory unless `where` says otherwise.
  Owned<OrtValue> tensor(const void* data, std::size_t bytes, const std::vector<std::int64_t>& shape,
                         ONNXTensorElementDataType type, const OrtMemoryInfo* where = nullptr) const;

 private:
  Port port(std::size_t index, bool is_input) const;

  Owned<OrtEnv> env_;
  Owned<OrtSession> session_;
  Owned<OrtMemoryInfo> memory_;
  std::vector<Port> inputs_, outputs_;
};

/// Bytes of an element; 0 for types that no model of ours has.
std::size_t element_size(ONNXTensorElementDataType type);

/// Of a weight stored in a dtype of weights.json.
ONNXTensorElementDataType type_of(const std::string& stored);

}  // namespace elastic::onnx
