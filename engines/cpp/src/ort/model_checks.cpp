#include "ort/model_checks.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "elastic_runtime/error.h"
#include "format/interface.h"

namespace elastic::onnx {
namespace {

constexpr char kKinds[][12] = {"conv_state", "ssm_state", "key_cache", "value_cache"};

const Port* named(const std::vector<Port>& all, const std::string& name) {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Port& port) { return port.name == name; });
  return found == all.end() ? nullptr : &*found;
}

}  // namespace

bool is_state(const std::string& name) {
  return std::any_of(std::begin(kKinds), std::end(kKinds), [&](const char* kind) {
    return name.compare(0, std::strlen(kind) + 1, std::string(kind) + ".") == 0;
  });
}

const Port* input_of(const Model& model, const std::string& name) { return named(model.inputs(), name); }

void check_logits(const Model& model, std::int64_t vocab, bool every_token) {
  const std::vector<Dim> expected = logits_port(vocab, every_token).shape;
  const Port* port = named(model.outputs(), "logits");
  if (port && port->shape.size() == expected.size() && port->shape.back() == vocab) return;
  std::vector<Dim> found;
  for (std::size_t i = 0; port && i < port->shape.size(); ++i)
    found.push_back({std::max<std::int64_t>(port->shape[i], 0), port->symbols[i]});
  throw InputError("model output logits", shape_text(expected) + " as in manifest.json", shape_text(found));
}

void check_weights(const Model& model, const WeightRecipe& recipe) {
  std::set<std::string> names = {"input_ids", "position", "length"};
  for (const WeightInput& item : recipe.inputs) {
    const Port* port = input_of(model, item.name);
    if (!port) throw InputError("weight " + show(item.name), "an input of the model", "none of that name");
    if (port->shape != item.shape() || port->type != type_of(item.parts[0].dtype))
      throw InputError("weight " + show(item.name), "the model's shape and dtype", "others in weights.json");
    names.insert(item.name);
  }
  for (const Port& port : model.inputs()) {
    if (!is_state(port.name) && names.count(port.name) == 0)
      throw InputError("model input " + show(port.name), "a weight of weights.json", "none of that name");
  }
}

}  // namespace elastic::onnx
