// `manifest.json`, schema `elastic-bundle/1`: what a bundle holds and what it needs.
//
// The records mirror elastic_runtime/format/manifest.py field by field: every field is required but a
// plugin's `carried` and a budget's `quantisation`, no other is allowed. Paths are relative to the bundle,
// `/` between the parts; sizes are bytes. The file is sealed:
// `"seal": "<64 hex digits>"` is the sha256 of its bytes with these digits replaced by zeros.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "elastic_runtime/fit.h"
#include "elastic_runtime/slicing.h"

namespace elastic {

struct FileEntry {
  std::string path;
  std::int64_t size = 0;
  std::string sha256;
};

struct Checkpoint {
  std::string name, fingerprint;
};

/// Widths of a sub-model; `ffn_sizes` by MLP layer, `mamba_heads` by Mamba layer. A manifest may have more,
/// of layer kinds that came later: their widths are in the graph, and nothing here reckons with them.
struct Widths {
  std::int64_t vocab_size = 0, hidden_size = 0;
  std::vector<std::int64_t> ffn_sizes, mamba_heads;
  std::int64_t mamba_head_dim = 0, ssm_groups = 0, ssm_state = 0, conv_kernel = 0;
  std::int64_t attention_heads = 0, kv_heads = 0, attention_head_dim = 0;
};

/// A state, the parent's layer it belongs to and, per axis, which of the parent's indices it keeps (none for
/// B and S).
struct StateEntry {
  std::string name;
  std::int64_t parent_layer = 0;
  std::vector<std::optional<Runs>> runs;
};

/// A number, or one of the symbols B (batch), T (tokens of the call), S (max_context).
struct Dim {
  std::int64_t size = 0;
  std::string symbol;  ///< empty for a number
};

struct InputPort {
  std::string name, dtype;
  std::vector<Dim> shape;
};

/// An output; a state output names its input and whether both share one buffer (`must`, `must_not`).
struct OutputPort {
  std::string name, dtype;
  std::vector<Dim> shape;
  std::optional<std::string> input, alias;
};

/// The plugin library inside an engine: its file in elastic-plugins, the TensorRT headers it was built with.
struct CarriedLibrary {
  std::string file;
  std::int64_t size = 0;
  std::string sha256, abi;
  std::vector<std::string> architectures;
};

struct Plugin {
  std::string library, abi;
  std::optional<CarriedLibrary> carried;
};

/// `built`: never run on a card. `verified`: on which card, on which day.
struct Status {
  std::string state;
  std::optional<std::string> card, date;
};

/// The exporter's reckoning at the engine's context and max_batch; `usable` and `enough` are absent for a
/// portable target.
struct Fits {
  VramNeed need;
  std::optional<std::int64_t> usable;
  std::optional<bool> enough;
};

struct EngineEntry {
  std::string target;
  std::vector<std::string> compute_capabilities;
  std::string file, flavour, version, ops;
  std::optional<Plugin> plugin;
  std::int64_t max_context = 0, max_tokens = 0, max_batch = 0;
  std::vector<InputPort> inputs;
  std::vector<OutputPort> outputs;
  std::int64_t activation = 0;
  bool activation_measured = false;
  Status status;
  Fits fits;
};

/// One sub-model in one form. `quantisation` is how its matrices are stored, empty where they have the
/// bundle's precision: `int8`, a scale a row. Each form of a budget is an entry with a name of its own
/// (forms.h).
struct BudgetEntry {
  std::string name;
  std::int64_t parameters = 0;
  std::string pattern;
  std::int64_t layers = 0;
  std::vector<std::int64_t> kept_layers;
  Widths widths;
  bool scalar_widths = false;
  std::int64_t weight_bytes = 0, state_bytes = 0, kv_bytes_per_token = 0;
  std::vector<StateEntry> states;
  std::string model;
  std::optional<std::string> weights, golden, report;
  std::vector<EngineEntry> engines;
  std::optional<std::string> quantisation;

  /// The budget that it is a form of: earlier exports gave int8 entries that name itself.
  std::string budget() const;

  /// What its memory depends on, with that engine.
  BudgetSize size(const EngineEntry& engine) const;
};

/// The order in which a budget is chosen: the largest first; of one budget what was not quantised first, so
/// that eight bits come before a smaller budget, and after the weights that were trained.
bool by_size(const BudgetEntry& a, const BudgetEntry& b);

struct Manifest {
  std::string producer;
  bool demo = false;
  Checkpoint checkpoint;
  std::string precision, weight_mode, logits;
  std::vector<std::pair<std::string, std::string>> options;  ///< what the export was asked for, as JSON texts
  std::vector<std::pair<std::string, std::string>> versions;
  std::vector<std::string> rules;
  std::vector<BudgetEntry> budgets;  ///< in the order of `by_size`
  std::vector<FileEntry> files, external_weights;
};

/// The manifest of the bundle in `folder`. Throws InputError (no bundle, another schema, a broken rule) or
/// DamageError (the bytes are not those that were sealed).
Manifest read_manifest(const std::filesystem::path& folder);

/// The manifest that `data` holds; `where` names it in errors.
Manifest parse_manifest(const std::string& data, const std::string& where = "manifest.json");

/// Whether the bytes of a manifest are those that were sealed.
bool is_sealed(const std::string& data);

/// The same text with its seal made again.
std::string reseal(std::string data);

}  // namespace elastic
