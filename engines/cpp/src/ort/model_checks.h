// Whether a model is the one that a bundle's other files speak of. Private to the library.
#pragma once

#include <cstdint>
#include <string>

#include "elastic_runtime/weights.h"
#include "ort/onnx_api.h"

namespace elastic::onnx {

/// Whether an input is a state, which an output of the model follows.
bool is_state(const std::string& name);

/// None where the model has no input of that name.
const Port* input_of(const Model& model, const std::string& name);

/// Whether the manifest says what logits the model gives: their buffer is made by it. Throws InputError
/// without advice, as the next one does: they do not know whose the model is.
void check_logits(const Model& model, std::int64_t vocab, bool every_token);

/// Whether weights.json says what the model asks for, before anything is read: two bytes are two bytes,
/// whatever they mean.
void check_weights(const Model& model, const WeightRecipe& recipe);

}  // namespace elastic::onnx
