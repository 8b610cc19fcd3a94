// The fields of a node or of a serialised plugin, by name: an op's attributes as TensorRT carries them.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "refusal.h"

namespace elastic::trt {

// Which values of a field are taken.
struct AtMost {  // 1 to `most`
  int32_t most;
};
struct Given {};     // any number
struct Optional {};  // any number; without one the member stays as it is

// Every reader throws Refusal, in the words of `op`.
class Fields {
 public:
  // Fields besides `names`, the op's, are refused: an attribute of a later version would change the result. TensorRT's
  // own are let pass.
  Fields(const char* op, const nvinfer1::PluginFieldCollection* fields, const std::vector<const char*>& names);

  void read(const char* name, int32_t& member, AtMost rule) const;
  void read(const char* name, float& member, Given) const;
  void read(const char* name, float& member, Optional) const;

 private:
  [[noreturn]] void refuse(const char* name, const std::string& expected, const std::string& found) const;
  const nvinfer1::PluginField* find(const char* name) const;
  const nvinfer1::PluginField& required(const char* name) const;
  void check(const nvinfer1::PluginField& field, nvinfer1::PluginFieldType type, const char* type_text) const;
  float read_float(const nvinfer1::PluginField& field) const;

  const char* op_;
  const nvinfer1::PluginFieldCollection* fields_;
};

}  // namespace elastic::trt
