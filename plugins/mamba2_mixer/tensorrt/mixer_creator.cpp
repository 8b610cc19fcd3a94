// The creator, and the two functions by which TensorRT finds it in the library.
#include <NvInferRuntime.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>

#include "guard.h"
#include "mixer_plugin.h"

namespace elastic::trt {
namespace {
std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};
}

void log_error(const char* text) noexcept {
  nvinfer1::ILoggerFinder* finder = logger_finder.load();
  nvinfer1::ILogger* logger = finder ? finder->findLogger() : nullptr;
  if (logger)
    logger->log(nvinfer1::ILogger::Severity::kERROR, text);
  else
    std::fprintf(stderr, "%s\n", text);
}
}  // namespace elastic::trt

namespace elastic::mamba2::trt {
namespace {

class MixerCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  MixerCreator() : fields_(names_only_) {}

  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return fields_.collection(); }

  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    return elastic::trt::guarded<nvinfer1::IPluginV3*>(nullptr,
                                                       [&] { return new MixerPlugin(read_attributes(fields)); });
  }

 private:
  Attributes names_only_;
  AttributeFields fields_;
};

}  // namespace
}  // namespace elastic::mamba2::trt

extern "C" ELASTIC_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static elastic::mamba2::trt::MixerCreator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}

extern "C" ELASTIC_API void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { elastic::trt::logger_finder = finder; }
