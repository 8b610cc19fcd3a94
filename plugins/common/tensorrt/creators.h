// The creators of the library's ops, each of which its own folder defines.
#pragma once

#include <NvInferRuntime.h>

namespace elastic::mamba2::trt {
nvinfer1::IPluginCreatorInterface& mixer_creator();
}
namespace elastic::attention::trt {
nvinfer1::IPluginCreatorInterface& attention_creator();
}
