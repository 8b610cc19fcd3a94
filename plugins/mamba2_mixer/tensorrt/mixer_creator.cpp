// What makes the op's plugins from a node's fields.
#include <NvInferRuntime.h>

#include "../../common/tensorrt/creators.h"
#include "../../common/tensorrt/guard.h"
#include "mixer_plugin.h"

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

nvinfer1::IPluginCreatorInterface& mixer_creator() {
  static MixerCreator creator;
  return creator;
}

}  // namespace elastic::mamba2::trt
