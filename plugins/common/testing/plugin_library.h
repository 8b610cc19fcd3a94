// The library as TensorRT sees it, without TensorRT: its creators, by name, and a call through a plugin. For tests.
#pragma once

#include <NvInferRuntime.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);

namespace elastic::testing {

inline nvinfer1::IPluginCreatorV3One& find_creator(const char* name) {
  int32_t count = 0;
  nvinfer1::IPluginCreatorInterface* const* all = getCreators(count);
  for (int32_t i = 0; i < count; ++i) {
    auto& creator = static_cast<nvinfer1::IPluginCreatorV3One&>(*all[i]);
    if (std::strcmp(creator.getPluginName(), name) == 0) return creator;
  }
  throw std::runtime_error("getCreators: expected a creator of " + std::string(name) + ", found none");
}

// One call through a fresh plugin: created, attached, told its shapes, enqueued, waited for. `call` describes the inputs,
// then the outputs.
inline void call_plugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                        const std::vector<nvinfer1::PluginTensorDesc>& call, const std::vector<const void*>& inputs,
                        const std::vector<void*>& outputs, void* workspace, cudaStream_t stream) {
  constexpr auto kPhase = nvinfer1::TensorRTPhase::kRUNTIME;
  std::unique_ptr<nvinfer1::IPluginV3> made(find_creator(name).createPlugin("called", fields, kPhase));
  if (!made) throw std::runtime_error("createPlugin: refused");
  constexpr auto kRuntime = nvinfer1::PluginCapabilityType::kRUNTIME;
  auto* unattached = static_cast<nvinfer1::IPluginV3OneRuntime*>(made->getCapabilityInterface(kRuntime));
  std::unique_ptr<nvinfer1::IPluginV3> plugin(unattached->attachToContext(nullptr));
  auto* runtime = static_cast<nvinfer1::IPluginV3OneRuntime*>(plugin->getCapabilityInterface(kRuntime));
  const auto in_count = static_cast<int32_t>(inputs.size()), out_count = static_cast<int32_t>(outputs.size());
  const nvinfer1::PluginTensorDesc *in = call.data(), *out = call.data() + in_count;
  if (runtime->onShapeChange(in, in_count, out, out_count) != 0) throw std::runtime_error("onShapeChange: refused");
  if (runtime->enqueue(in, out, inputs.data(), outputs.data(), workspace, stream) != 0)
    throw std::runtime_error("enqueue: failed");
  if (cudaStreamSynchronize(stream) != cudaSuccess) throw std::runtime_error("enqueue: a kernel failed");
}

}  // namespace elastic::testing
