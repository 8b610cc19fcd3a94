// An op's attributes as TensorRT carries them, from one list: read, checked, and handed on as fields.
//
// Attributes is a struct of int32_t and float members. Its `each(self, visit)` calls visit(name, member, rule) for
// every one, in contract.json's order; `rule` says which values `Fields` takes.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <vector>

#include "fields.h"

namespace elastic::trt {

// The attributes of a node or of a serialised plugin of `op`; throws Refusal. What they must be beside each other is
// for the op to check.
template <typename Attributes>
Attributes read_attributes(const char* op, const nvinfer1::PluginFieldCollection* collection) {
  Attributes attributes;
  std::vector<const char*> names;
  Attributes::each(attributes, [&](const char* name, const auto&, auto) { names.push_back(name); });
  const Fields fields(op, collection, names);
  Attributes::each(attributes, [&](const char* name, auto& member, auto rule) { fields.read(name, member, rule); });
  return attributes;
}

// The fields of an Attributes object that must outlive them.
template <typename Attributes>
class AttributeFields {
 public:
  explicit AttributeFields(const Attributes& attributes) {
    Attributes::each(attributes, [this](const char* name, const auto& member, auto) {
      fields_.emplace_back(name, &member, type_of(member), 1);
    });
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
  }
  AttributeFields(const AttributeFields&) = delete;  // the collection points into the object
  AttributeFields& operator=(const AttributeFields&) = delete;
  const nvinfer1::PluginFieldCollection* collection() const { return &collection_; }

 private:
  static nvinfer1::PluginFieldType type_of(int32_t) { return nvinfer1::PluginFieldType::kINT32; }
  static nvinfer1::PluginFieldType type_of(float) { return nvinfer1::PluginFieldType::kFLOAT32; }

  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_ = {};
};

}  // namespace elastic::trt
