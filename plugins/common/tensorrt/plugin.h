// IPluginV3 around an op's C interface: shapes, types and aliases at build time, buffers and launches at run time.
//
// What an Op has, a Refusal being thrown wherever it says no:
//   kName, kVersion; Attributes (attributes.h), and static void check(attributes)
//   kInputs, kOutputs, input_name(index)         of contract.json, in its order
//   allowed_type(index, types)                   whether the type of that tensor (inputs, then outputs) is allowed
//                                                beside those before it
//   read_shape(attributes, dims)                 the shape of a call from the dims of its inputs, every one checked
//   static void output_types(in, out), output_shapes(in, out)
//   static int aliased_input(output)             the input whose buffer that output is written to; -1: none
//   static size_t workspace_bytes(shape)
//   void attach()                                takes memory that outlives a call, if it can
//   void set_call(attributes, shape, inputs)     of calls to come
//   void enqueue(in, out, workspace, stream)
#pragma once

#include <NvInferRuntime.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "attributes.h"
#include "dims.h"
#include "guard.h"

namespace elastic::trt {

template <typename Op>
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::v_2_0::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  using Attributes = typename Op::Attributes;
  using DynamicDesc = nvinfer1::DynamicPluginTensorDesc;
  using Desc = nvinfer1::PluginTensorDesc;

  explicit Plugin(const Attributes& attributes) : attributes_(attributes), fields_(attributes_) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
    if (type == nvinfer1::PluginCapabilityType::kCORE) return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    if (type == nvinfer1::PluginCapabilityType::kBUILD) return static_cast<nvinfer1::v_2_0::IPluginV3OneBuild*>(this);
    if (type == nvinfer1::PluginCapabilityType::kRUNTIME) return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    return nullptr;
  }

  nvinfer1::IPluginV3* clone() noexcept override {
    return guarded<nvinfer1::IPluginV3*>(nullptr, [&] { return new Plugin(attributes_); });
  }

  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return Op::kVersion; }
  const char* getPluginNamespace() const noexcept override { return ""; }
  int32_t getNbOutputs() const noexcept override { return Op::kOutputs; }
  int32_t getAliasedInput(int32_t output) noexcept override { return Op::aliased_input(output); }
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override { return fields_.collection(); }

  int32_t configurePlugin(const DynamicDesc* in, int32_t inputs, const DynamicDesc*,
                          int32_t outputs) noexcept override {
    return checked(inputs, outputs, [&] {
      const auto dims = largest(in);
      if (std::all_of(dims.begin(), dims.end(), is_known)) (void)Op::read_shape(attributes_, dims.data());
    });
  }

  int32_t getOutputDataTypes(nvinfer1::DataType* out, int32_t outputs, const nvinfer1::DataType* in,
                             int32_t inputs) const noexcept override {
    return checked(inputs, outputs, [&] { Op::output_types(in, out); });
  }

  int32_t getOutputShapes(const nvinfer1::DimsExprs* in, int32_t inputs, const nvinfer1::DimsExprs*, int32_t,
                          nvinfer1::DimsExprs* out, int32_t outputs, nvinfer1::IExprBuilder&) noexcept override {
    return checked(inputs, outputs, [&] { Op::output_shapes(in, out); });
  }

  bool supportsFormatCombination(int32_t position, const DynamicDesc* tensors, int32_t inputs,
                                 int32_t outputs) noexcept override {
    return guarded(false, [&] {
      check_count(inputs, outputs);
      Types types{};  // beyond `position` they are not set yet
      for (int i = 0; i <= position; ++i) types[i] = tensors[i].desc.type;
      return tensors[position].desc.format == nvinfer1::TensorFormat::kLINEAR &&
             Op::allowed_type(position, types.data());
    });
  }

  size_t getWorkspaceSize(const DynamicDesc* in, int32_t inputs, const DynamicDesc*,
                          int32_t outputs) const noexcept override {
    return guarded<size_t>(0, [&] {
      check_count(inputs, outputs);
      return Op::workspace_bytes(Op::read_shape(attributes_, largest(in).data()));
    });
  }

  // Memory is taken here, where a context is made: onShapeChange runs inside the call that follows a new shape, and
  // TensorRT may be recording that one. A builder attaches too, on machines without a GPU.
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return guarded<nvinfer1::IPluginV3*>(nullptr, [&] {
      auto attached = std::make_unique<Plugin>(attributes_);
      attached->op_.attach();
      return attached.release();
    });
  }

  int32_t onShapeChange(const Desc* in, int32_t inputs, const Desc* out, int32_t outputs) noexcept override {
    taken_ = false;
    return checked(inputs, outputs, [&] {
      check_types(in, out);
      std::array<nvinfer1::Dims, Op::kInputs> dims;
      for (int i = 0; i < Op::kInputs; ++i) dims[i] = in[i].dims;
      op_.set_call(attributes_, Op::read_shape(attributes_, dims.data()), in);
      taken_ = true;
    });
  }

  int32_t enqueue(const Desc*, const Desc*, const void* const* in, void* const* out, void* workspace,
                  cudaStream_t stream) noexcept override {
    return guarded(kFailure, [&] {
      if (!taken_) refuse("call", "shapes that onShapeChange took", "none");
      op_.enqueue(in, out, workspace, stream);
      return 0;
    });
  }

 private:
  using Types = std::array<nvinfer1::DataType, Op::kInputs + Op::kOutputs>;
  static constexpr int32_t kFailure = -1;

  template <typename Body>
  static int32_t checked(int32_t inputs, int32_t outputs, Body body) noexcept {
    return guarded(kFailure, [&] {
      check_count(inputs, outputs);
      body();
      return 0;
    });
  }

  static void check_count(int32_t inputs, int32_t outputs) {
    if (inputs != Op::kInputs) refuse("inputs", std::to_string(Op::kInputs), std::to_string(inputs));
    if (outputs != Op::kOutputs) refuse("outputs", std::to_string(Op::kOutputs), std::to_string(outputs));
  }

  static void check_types(const Desc* in, const Desc* out) {
    Types types{};
    for (int i = 0; i < Op::kInputs; ++i) types[i] = in[i].type;
    for (int i = 0; i < Op::kOutputs; ++i) types[Op::kInputs + i] = out[i].type;
    for (int i = 0; i < Op::kInputs + Op::kOutputs; ++i)
      if (!Op::allowed_type(i, types.data()))
        refuse("type of " + (i < Op::kInputs ? Op::input_name(i) : "output " + std::to_string(i - Op::kInputs)),
               "what contract.json allows", "type " + std::to_string(static_cast<int>(types[i])));
  }

  [[noreturn]] static void refuse(const std::string& subject, const std::string& expected, const std::string& found) {
    throw Refusal(Op::kName, subject, expected, found);
  }

  static std::array<nvinfer1::Dims, Op::kInputs> largest(const DynamicDesc* in) {
    std::array<nvinfer1::Dims, Op::kInputs> dims;
    for (int i = 0; i < Op::kInputs; ++i) dims[i] = in[i].max;
    return dims;
  }

  Attributes attributes_;
  AttributeFields<Attributes> fields_;
  Op op_;
  bool taken_ = false;  // after a refusal the op holds the shapes of an earlier call, or half of the refused one
};

// What makes an op's plugins from a node's fields.
template <typename Op>
class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  Creator() : fields_(names_only_) {}

  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return Op::kVersion; }
  const char* getPluginNamespace() const noexcept override { return ""; }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return fields_.collection(); }

  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    return guarded<nvinfer1::IPluginV3*>(nullptr, [&] {
      const auto attributes = read_attributes<typename Op::Attributes>(Op::kName, fields);
      Op::check(attributes);
      return new Plugin<Op>(attributes);
    });
  }

 private:
  typename Op::Attributes names_only_;
  AttributeFields<typename Op::Attributes> fields_;
};

}  // namespace elastic::trt
