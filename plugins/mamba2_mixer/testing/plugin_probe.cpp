// What the plugin says to good and bad fields, shapes and types (../../common/testing/plugin_probe.h).
#include "../../common/testing/plugin_probe.h"

#include "plugin_call.h"

int main(int count, char** raw) {
  using namespace elastic::mamba2::trt;
  using namespace elastic::testing;
  constexpr elastic::mamba2::Shape kShape = {2, 7, 8, 20, 2, 16, 4};
  PrintingFinder finder;
  setLoggerFinder(&finder);
  const Words good = {{"n_groups", "2"}, {"head_dim", "20"}, {"state_size", "16"}, {"epsilon", "0.00001"}};
  Words words = read_words(good, count, raw);
  const Wrongs wrongs = take_wrongs(words, kInputs);
  const auto plugin = create_plugin(kName, words);
  if (plugin) probe(*plugin, call_descriptions(kShape, ELASTIC_BFLOAT16, ELASTIC_BFLOAT16), kInputs, wrongs);
  return 0;
}
