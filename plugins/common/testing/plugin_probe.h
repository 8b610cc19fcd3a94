// What programs share that ask a plugin about fields, shapes and types: the answers as lines, the log in front of them.
// Their words, each over a good call: [attribute=value]... [wrong=INPUT] [type=TENSOR:CODE] [count=INPUTS]
#pragma once

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "plugin_library.h"

namespace elastic::testing {

class PrintingLogger final : public nvinfer1::ILogger {
 public:
  void log(Severity, const char* text) noexcept override { std::printf("log: %s\n", text); }
};
class PrintingFinder final : public nvinfer1::ILoggerFinder {
 public:
  nvinfer1::ILogger* findLogger() override { return &logger_; }
  ~PrintingFinder() override = default;

 private:
  PrintingLogger logger_;
};

using Words = std::map<std::string, std::string>;

// The words that a program was given over the good ones; "none" takes one away.
inline Words read_words(Words words, int count, char** raw) {
  for (int i = 1; i < count; ++i) {
    const std::string word = raw[i];
    const auto equals = word.find('=');
    const std::string value = word.substr(equals + 1);
    if (value == "none")
      words.erase(word.substr(0, equals));
    else
      words[word.substr(0, equals)] = value;
  }
  return words;
}

// A word that is no attribute, out of the words; "" where it is not there.
inline std::string take(Words& words, const char* key) {
  const auto found = words.find(key);
  if (found == words.end()) return "";
  const std::string value = found->second;
  words.erase(found);
  return value;
}

// A plugin of these attributes; null where it is refused. A value with a point, or inf or nan, is a float; another an
// integer.
inline std::unique_ptr<nvinfer1::IPluginV3> create_plugin(const char* name, const Words& attributes) {
  using nvinfer1::PluginFieldType;
  std::vector<int32_t> ints(attributes.size());
  std::vector<float> floats(attributes.size());
  std::vector<nvinfer1::PluginField> fields;
  for (const auto& [attribute, value] : attributes) {
    const size_t i = fields.size();
    const bool is_float = value.find_first_of(".n") != std::string::npos;
    ints[i] = std::atoi(value.c_str());
    floats[i] = std::strtof(value.c_str(), nullptr);
    const void* data = is_float ? static_cast<const void*>(&floats[i]) : &ints[i];
    fields.emplace_back(attribute.c_str(), data, is_float ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32, 1);
  }
  const nvinfer1::PluginFieldCollection all = {static_cast<int32_t>(fields.size()), fields.data()};
  constexpr auto kPhase = nvinfer1::TensorRTPhase::kBUILD;
  std::unique_ptr<nvinfer1::IPluginV3> plugin(find_creator(name).createPlugin("probed", &all, kPhase));
  std::printf("create: %s\n", plugin ? "done" : "refused");
  return plugin;
}

// Which tensor of the call is described wrongly, and how many inputs are told: words that are no attributes.
struct Wrongs {
  std::string size, type;
  int inputs;
};

inline Wrongs take_wrongs(Words& words, int inputs) {
  const std::string size = take(words, "wrong"), type = take(words, "type"), count = take(words, "count");
  return {size, type, count.empty() ? inputs : std::atoi(count.c_str())};
}

inline std::vector<nvinfer1::DynamicPluginTensorDesc> describe(const std::vector<nvinfer1::PluginTensorDesc>& call,
                                                               const Wrongs& wrongs) {
  std::vector<nvinfer1::DynamicPluginTensorDesc> all;
  for (const nvinfer1::PluginTensorDesc& desc : call) all.push_back({desc, desc.dims, desc.dims, desc.dims});
  if (!wrongs.size.empty()) {
    nvinfer1::Dims& dims = all[std::atoi(wrongs.size.c_str())].max;
    ++dims.d[dims.nbDims - 1];
  }
  if (!wrongs.type.empty())
    all[std::atoi(wrongs.type.c_str())].desc.type =
        static_cast<nvinfer1::DataType>(std::atoi(wrongs.type.substr(wrongs.type.find(':') + 1).c_str()));
  return all;
}

// What the plugin says to a call of `inputs` inputs, then outputs, with these wrongs in it.
inline void probe(nvinfer1::IPluginV3& plugin, const std::vector<nvinfer1::PluginTensorDesc>& call, int inputs,
                  const Wrongs& wrongs) {
  constexpr auto kBuild = nvinfer1::PluginCapabilityType::kBUILD;
  auto& build = *static_cast<nvinfer1::v_2_0::IPluginV3OneBuild*>(plugin.getCapabilityInterface(kBuild));
  const int tensors = static_cast<int>(call.size()), outputs = tensors - inputs;
  const auto all = describe(call, wrongs);
  const auto* in = all.data();
  std::printf("configure: %d\n", build.configurePlugin(in, wrongs.inputs, in + inputs, outputs));
  std::printf("workspace: %zu\n", build.getWorkspaceSize(in, wrongs.inputs, in + inputs, outputs));
  std::printf("formats:");
  for (int i = 0; i < tensors; ++i) std::printf(" %d", build.supportsFormatCombination(i, in, inputs, outputs));
  std::printf("\nalias:");
  for (int i = 0; i < outputs; ++i) std::printf(" %d", build.getAliasedInput(i));
  std::printf("\n");
}

}  // namespace elastic::testing
