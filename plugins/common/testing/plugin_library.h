// The library as TensorRT sees it: its creators, by name.
#pragma once

#include <NvInferRuntime.h>

#include <cstring>
#include <stdexcept>
#include <string>

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

}  // namespace elastic::testing
