// JSON to the records of manifest.h, in the order of their fields.
#include "format/manifest_decode.h"

#include "elastic_runtime/error.h"
#include "format/records.h"

namespace elastic {
namespace {

Run run(const Value& value, const Where& where) {
  const Array& items = as_array(value, where);
  if (items.size() != 2) fail_mismatch(where, "an array of 2 items", value);
  const std::int64_t start = as_integer(items[0], where.item(0));
  return {start, as_integer(items[1], where.item(1))};
}

Runs run_list(const Value& value, const Where& where) { return as_list(value, where, run); }

FileEntry file_entry(const Value& value, const Where& where) {
  const Fields fields(value, where, {"path", "size", "sha256"});
  return {fields.text("path"), fields.integer("size"), fields.text("sha256")};
}

Checkpoint checkpoint(const Value& value, const Where& where) {
  const Fields fields(value, where, {"name", "fingerprint"});
  return {fields.text("name"), fields.text("fingerprint")};
}

Widths widths(const Value& value, const Where& where) {
  const Fields fields(
      value, where,
      {"vocab_size", "hidden_size", "ffn_sizes", "mamba_heads", "mamba_head_dim", "ssm_groups", "ssm_state",
       "conv_kernel", "attention_heads", "kv_heads", "attention_head_dim"},
      {}, Fields::Others::kAllowed);
  Widths result;
  result.vocab_size = fields.integer("vocab_size");
  result.hidden_size = fields.integer("hidden_size");
  result.ffn_sizes = fields.list("ffn_sizes", as_integer);
  result.mamba_heads = fields.list("mamba_heads", as_integer);
  result.mamba_head_dim = fields.integer("mamba_head_dim");
  result.ssm_groups = fields.integer("ssm_groups");
  result.ssm_state = fields.integer("ssm_state");
  result.conv_kernel = fields.integer("conv_kernel");
  result.attention_heads = fields.integer("attention_heads");
  result.kv_heads = fields.integer("kv_heads");
  result.attention_head_dim = fields.integer("attention_head_dim");
  for (const auto& [name, width] : value.items()) {  // of kinds unknown here: a width, or one a layer
    if (width.is_array()) {
      as_list(width, where.field(name), as_integer);
    } else {
      as_integer(width, where.field(name));
    }
  }
  return result;
}

StateEntry state_entry(const Value& value, const Where& where) {
  const Fields fields(value, where, {"name", "parent_layer", "runs"});
  const auto axis = [](const Value& item, const Where& place) -> std::optional<Runs> {
    if (item.is_null()) return std::nullopt;
    return run_list(item, place);
  };
  return {fields.text("name"), fields.integer("parent_layer"), fields.list("runs", axis)};
}

Dim dim(const Value& value, const Where& where) {
  const std::int64_t* number = if_integer(value);
  if (number && *number >= 0 && *number <= kMaxInt) return {*number, {}};
  const std::string* symbol = if_text(value);
  if (symbol && (*symbol == "B" || *symbol == "T" || *symbol == "S")) return {0, *symbol};
  const std::string integer = "an integer from 0 to " + std::to_string(kMaxInt);
  throw InputError(where.text(), "one of the forms " + integer + ", 'B' or 'T' or 'S'",
                   symbol ? in_quotes(show(*symbol)) : show_value(value));
}

InputPort input_port(const Value& value, const Where& where) {
  const Fields fields(value, where, {"name", "dtype", "shape"});
  return {fields.text("name"), fields.text("dtype"), fields.list("shape", dim)};
}

OutputPort output_port(const Value& value, const Where& where) {
  const Fields fields(value, where, {"name", "dtype", "shape", "input", "alias"});
  OutputPort port{fields.text("name"), fields.text("dtype"), fields.list("shape", dim), {}, {}};
  port.input = fields.optional_text("input");
  if (!fields["alias"].is_null()) port.alias = fields.choice("alias", {"must", "must_not"});
  return port;
}

CarriedLibrary carried_library(const Value& value, const Where& where) {
  const Fields fields(value, where, {"file", "size", "sha256", "abi", "architectures"});
  return {fields.text("file"), fields.integer("size"), fields.text("sha256"), fields.text("abi"),
          fields.list("architectures", as_text)};
}

Plugin plugin(const Value& value, const Where& where) {
  const Fields fields(value, where, {"library", "abi"}, {"carried"});
  return {fields.text("library"), fields.text("abi"), fields.optional("carried", carried_library)};
}

Status status(const Value& value, const Where& where) {
  const Fields fields(value, where, {"state", "card", "date"});
  Status result{fields.choice("state", {"built", "verified"}), {}, {}};
  result.card = fields.optional_text("card");
  result.date = fields.optional_text("date");
  return result;
}

Fits fits(const Value& value, const Where& where) {
  const Fields fields(value, where,
                      {"context", "batch", "weights", "states", "caches", "activation", "activation_measured",
                       "reserve", "total", "usable", "enough"});
  Fits result;
  result.need.context = fields.integer("context");
  result.need.batch = fields.integer("batch");
  result.need.weights = fields.integer("weights");
  result.need.states = fields.integer("states");
  result.need.caches = fields.integer("caches");
  result.need.activation = fields.integer("activation");
  result.need.activation_measured = fields.truth("activation_measured");
  result.need.reserve = fields.integer("reserve");
  result.need.total = fields.integer("total");
  result.usable = fields.optional("usable", as_integer);
  result.enough = fields.optional("enough", as_truth);
  return result;
}

EngineEntry engine_entry(const Value& value, const Where& where) {
  const Fields fields(value, where,
                      {"target", "compute_capabilities", "file", "flavour", "version", "ops", "plugin",
                       "max_context", "max_tokens", "max_batch", "inputs", "outputs", "activation",
                       "activation_measured", "status", "fits"});
  EngineEntry result;
  result.target = fields.text("target");
  result.compute_capabilities = fields.list("compute_capabilities", as_text);
  result.file = fields.text("file");
  result.flavour = fields.choice("flavour", {"tensorrt-rtx", "tensorrt"});
  result.version = fields.text("version");
  result.ops = fields.choice("ops", {"plugin", "native"});
  result.plugin = fields.optional("plugin", plugin);
  result.max_context = fields.integer("max_context");
  result.max_tokens = fields.integer("max_tokens");
  result.max_batch = fields.integer("max_batch");
  result.inputs = fields.list("inputs", input_port);
  result.outputs = fields.list("outputs", output_port);
  result.activation = fields.integer("activation");
  result.activation_measured = fields.truth("activation_measured");
  result.status = fields.read("status", status);
  result.fits = fields.read("fits", fits);
  return result;
}

BudgetEntry budget_entry(const Value& value, const Where& where) {
  const Fields fields(
      value, where,
      {"name", "parameters", "pattern", "layers", "kept_layers", "widths", "scalar_widths", "weight_bytes",
       "state_bytes", "kv_bytes_per_token", "states", "model", "weights", "golden", "report", "engines"},
      {"quantisation"});
  BudgetEntry result;
  result.name = fields.text("name");
  result.parameters = fields.integer("parameters");
  result.pattern = fields.text("pattern");
  result.layers = fields.integer("layers");
  result.kept_layers = fields.list("kept_layers", as_integer);
  result.widths = fields.read("widths", widths);
  result.scalar_widths = fields.truth("scalar_widths");
  result.weight_bytes = fields.integer("weight_bytes");
  result.state_bytes = fields.integer("state_bytes");
  result.kv_bytes_per_token = fields.integer("kv_bytes_per_token");
  result.states = fields.list("states", state_entry);
  result.model = fields.text("model");
  result.weights = fields.optional_text("weights");
  result.golden = fields.optional_text("golden");
  result.report = fields.optional_text("report");
  result.engines = fields.list("engines", engine_entry);
  result.quantisation = fields.optional(
      "quantisation", [](const Value& how, const Where& place) { return as_choice(how, place, {"int8"}); });
  return result;
}

/// Text, a count, a truth or an array of one of the first two: what an option may be. As JSON text.
std::string option(const Value& value, const Where& where) {
  const auto is_count = [](const Value& item) {
    const std::int64_t* number = if_integer(item);
    return number && *number >= 0 && *number <= kMaxInt;
  };
  bool fine = value.is_string() || value.is_boolean() || is_count(value);
  if (const Array* items = if_array(value)) {
    bool counts = true, texts = true;
    for (const Value& item : *items) {
      counts = counts && is_count(item);
      texts = texts && item.is_string();
    }
    fine = counts || texts;
  }
  if (fine) return value.dump();
  const std::string count = "an integer from 0 to " + std::to_string(kMaxInt);
  fail_mismatch(where, "one of the forms text, " + count + ", true or false, an array, an array", value);
}

template <typename Read>
auto dictionary(const Fields& fields, std::string_view name, Read&& read) {
  std::vector<std::pair<std::string, decltype(read(fields[name], fields.where(name)))>> result;
  const Where where = fields.where(name);
  for (const auto& [key, value] : as_object(fields[name], where)) {
    result.emplace_back(key, read(value, where.key(key)));
  }
  return result;
}

}  // namespace

Runs decode_runs(const Value& value, const Where& where) { return run_list(value, where); }

Manifest decode_manifest(const Value& value, const Where& where) {
  const Fields fields(value, where,
                      {"producer", "demo", "checkpoint", "precision", "weight_mode", "logits", "options",
                       "versions", "rules", "budgets", "files", "external_weights"});
  Manifest result;
  result.producer = fields.text("producer");
  result.demo = fields.truth("demo");
  result.checkpoint = fields.read("checkpoint", checkpoint);
  result.precision = fields.choice("precision", {"bf16", "fp16", "fp32"});
  result.weight_mode = fields.choice("weight_mode", {"shared", "sliced", "embedded"});
  result.logits = fields.choice("logits", {"last", "all"});
  result.options = dictionary(fields, "options", option);
  result.versions = dictionary(fields, "versions", as_text);
  result.rules = fields.list("rules", as_text);
  result.budgets = fields.list("budgets", budget_entry);
  result.files = fields.list("files", file_entry);
  result.external_weights = fields.list("external_weights", file_entry);
  return result;
}

}  // namespace elastic
