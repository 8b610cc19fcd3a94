// What the plugin says to good and bad fields, shapes and types (../../common/testing/plugin_probe.h), and
//   attention_probe call=refused     to a call that is enqueued though its shapes were refused, after shapes that were not
#include "../../common/testing/plugin_probe.h"

#include "attention_call.h"

namespace {

using namespace elastic::attention::trt;
using namespace elastic::testing;

void call_refused(nvinfer1::IPluginV3& plugin) {
  constexpr auto kRuntime = nvinfer1::PluginCapabilityType::kRUNTIME;
  auto& runtime = *static_cast<nvinfer1::IPluginV3OneRuntime*>(plugin.getCapabilityInterface(kRuntime));
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
  constexpr elastic::attention::Shape kShape = {2, 7, 10, 2, 64, 131072};
  PrintingFinder finder;
  setLoggerFinder(&finder);
  const Words good = {{"num_heads", "10"}, {"num_key_value_heads", "2"}, {"head_dim", "64"}, {"scale", "0.125"}};
  Words words = read_words(good, count, raw);
  const Wrongs wrongs = take_wrongs(words, kInputs);
  const bool refused = !take(words, "call").empty();
  const auto plugin = create_plugin(kName, words);
  if (plugin && refused)
    call_refused(*plugin);
  else if (plugin)
    probe(*plugin, call_descriptions(kShape, ELASTIC_BFLOAT16), kInputs, wrongs);
  return 0;
}
