// What the plugin says to good and bad fields, shapes and types: the answers as lines, the log in front of them.
//   attention_probe [attribute=value]... [wrong=INPUT] [type=TENSOR:CODE] [count=INPUTS]
//   attention_probe call=refused     a call that is enqueued though its shapes were refused, after shapes that were not
#include <cstdio>
#include <cstdlib>
#include <map>

#include "attention_call.h"

namespace {

using namespace elastic::attention::trt;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

class Logger final : public nvinfer1::ILogger {
 public:
  void log(Severity, const char* text) noexcept override { std::printf("log: %s\n", text); }
};
class Finder final : public nvinfer1::ILoggerFinder {
 public:
  nvinfer1::ILogger* findLogger() override { return &logger_; }
  ~Finder() override = default;

 private:
  Logger logger_;
};

// key=value words: what the test wants, over a good case.
using Words = std::map<std::string, std::string>;

Words read_words(int count, char** raw) {
  Words words = {{"num_heads", "10"}, {"num_key_value_heads", "2"}, {"head_dim", "64"}, {"scale", "0.125"}};
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

std::string take(Words& words, const char* key) {
  const auto found = words.find(key);
  if (found == words.end()) return "";
  const std::string value = found->second;
  words.erase(found);
  return value;
}

// A value with a point, or inf or nan, is a float; another an integer.
std::unique_ptr<nvinfer1::IPluginV3> create(const Words& words) {
  std::vector<int32_t> ints(words.size());
  std::vector<float> floats(words.size());
  std::vector<PluginField> fields;
  for (const auto& [name, value] : words) {
    const size_t i = fields.size();
    const bool is_float = value.find_first_of(".n") != std::string::npos;
    ints[i] = std::atoi(value.c_str());
    floats[i] = std::strtof(value.c_str(), nullptr);
    const void* data = is_float ? static_cast<const void*>(&floats[i]) : &ints[i];
    fields.emplace_back(name.c_str(), data, is_float ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32, 1);
  }
  const nvinfer1::PluginFieldCollection all = {static_cast<int32_t>(fields.size()), fields.data()};
  constexpr auto kPhase = nvinfer1::TensorRTPhase::kBUILD;
  return std::unique_ptr<nvinfer1::IPluginV3>(find_creator().createPlugin("attention", &all, kPhase));
}

std::vector<nvinfer1::DynamicPluginTensorDesc> describe(const std::string& wrong, const std::string& type) {
  constexpr elastic::attention::Shape kShape = {2, 7, 10, 2, 64, 131072};
  std::vector<nvinfer1::DynamicPluginTensorDesc> all;
  for (nvinfer1::PluginTensorDesc desc : call_descriptions(kShape, ELASTIC_BFLOAT16))
    all.push_back({desc, desc.dims, desc.dims, desc.dims});
  if (!wrong.empty()) {
    nvinfer1::Dims& dims = all[std::atoi(wrong.c_str())].max;
    ++dims.d[dims.nbDims - 1];
  }
  if (!type.empty())
    all[std::atoi(type.c_str())].desc.type =
        static_cast<nvinfer1::DataType>(std::atoi(type.substr(type.find(':') + 1).c_str()));
  return all;
}

void probe(nvinfer1::v_2_0::IPluginV3OneBuild& build, const std::string& wrong, const std::string& type, int inputs) {
  const auto all = describe(wrong, type);
  std::printf("configure: %d\n", build.configurePlugin(all.data(), inputs, all.data() + kInputs, kOutputs));
  std::printf("workspace: %zu\n", build.getWorkspaceSize(all.data(), inputs, all.data() + kInputs, kOutputs));
  std::printf("formats:");
  for (int i = 0; i < kInputs + kOutputs; ++i)
    std::printf(" %d", build.supportsFormatCombination(i, all.data(), inputs, kOutputs));
  std::printf("\nalias: %d %d %d\n", build.getAliasedInput(kY), build.getAliasedInput(kKeyCacheOut),
              build.getAliasedInput(kValueCacheOut));
}

void call_refused(nvinfer1::IPluginV3OneRuntime& runtime) {
  auto all = call_descriptions({1, 1, 10, 2, 64, 128}, ELASTIC_BFLOAT16);
  const auto *in = all.data(), *out = all.data() + kInputs;
  std::printf("shapes: %d\n", runtime.onShapeChange(in, kInputs, out, kOutputs));
  ++all[kKey].dims.d[2];
  std::printf("shapes: %d\n", runtime.onShapeChange(in, kInputs, out, kOutputs));
  const void* inputs[kInputs] = {};
  void* outputs[kOutputs] = {};
  std::printf("enqueue: %d\n", runtime.enqueue(in, out, inputs, outputs, nullptr, nullptr));
}

}  // namespace

int main(int count, char** raw) {
  Finder finder;
  setLoggerFinder(&finder);
  Words words = read_words(count, raw);
  const std::string wrong = take(words, "wrong"), type = take(words, "type"), given = take(words, "count");
  const bool call = !take(words, "call").empty();
  const auto plugin = create(words);
  std::printf("create: %s\n", plugin ? "done" : "refused");
  if (!plugin) return 0;
  if (call) {
    constexpr auto kRuntime = nvinfer1::PluginCapabilityType::kRUNTIME;
    call_refused(*static_cast<nvinfer1::IPluginV3OneRuntime*>(plugin->getCapabilityInterface(kRuntime)));
    return 0;
  }
  constexpr auto kBuild = nvinfer1::PluginCapabilityType::kBUILD;
  auto* build = static_cast<nvinfer1::v_2_0::IPluginV3OneBuild*>(plugin->getCapabilityInterface(kBuild));
  probe(*build, wrong, type, given.empty() ? kInputs : std::atoi(given.c_str()));
  return 0;
}
