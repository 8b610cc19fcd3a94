#include "ort/model_checks.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "elastic_runtime/error.h"

namespace elastic::onnx {
namespace {

constexpr char kKinds[][12] = {"conv_state", "ssm_state", "key_cache", "value_cache"};

std::string in_brackets(const std::vector<std::string>& shape) {
  std::string text;
  for (const std::string& size : shape) text += (text.empty() ? "" : ", ") + size;
  return "[" + text + "]";
}

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
  std::vector<std::string> expected = {"B", std::to_string(vocab)}, found;
  if (every_token) expected.insert(expected.begin() + 1, "T");
  const Port* port = named(model.outputs(), "logits");
  for (std::size_t i = 0; port && i < port->shape.size(); ++i)
    found.push_back(port->shape[i] < 0 ? port->symbols[i] : std::to_string(port->shape[i]));
  if (found.size() == expected.size() && found.back() == expected.back()) return;
  throw InputError("model output logits", in_brackets(expected) + " as in manifest.json", in_brackets(found));
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
