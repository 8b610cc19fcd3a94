// The op's attributes as TensorRT carries them: contract.json's `attributes`, in its order.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstdint>
#include <limits>
#include <string>

#include "../../common/tensorrt/refusal.h"

namespace elastic::mamba2::trt {

constexpr char kName[] = "Mamba2Mixer";

class Refusal : public elastic::trt::Refusal {
 public:
  Refusal(const std::string& subject, const std::string& expected, const std::string& found)
      : elastic::trt::Refusal(kName, subject, expected, found) {}
};

struct Attributes {
  int32_t n_groups = 0;
  int32_t head_dim = 0;
  int32_t state_size = 0;
  float epsilon = 0.f;
  float time_step_min = 0.f;
  float time_step_max = std::numeric_limits<float>::infinity();
};

// Reads and checks the fields of a node or of a serialised plugin; throws Refusal.
Attributes read_attributes(const nvinfer1::PluginFieldCollection* fields);

// The fields of an Attributes object that must outlive them.
class AttributeFields {
 public:
  explicit AttributeFields(const Attributes& attributes);
  AttributeFields(const AttributeFields&) = delete;  // the collection points into the object
  AttributeFields& operator=(const AttributeFields&) = delete;
  const nvinfer1::PluginFieldCollection* collection() const { return &collection_; }

 private:
  std::array<nvinfer1::PluginField, 6> fields_;
  nvinfer1::PluginFieldCollection collection_;
};

}  // namespace elastic::mamba2::trt
