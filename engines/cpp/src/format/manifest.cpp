// Reading `manifest.json`: the seal, then the schema, then what no type can say.
#include "elastic_runtime/manifest.h"

#include <algorithm>
#include <string_view>
#include <tuple>
#include <unordered_set>

#include "advised.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/sha256.h"
#include "files.h"
#include "format/interface.h"
#include "format/manifest_decode.h"
#include "format/paths.h"
#include "unicode.h"

namespace elastic {
namespace {

constexpr char kSchema[] = "elastic-bundle/1";
constexpr std::size_t kReadLimit = std::size_t{16}
                                   << 20;  // bytes; 20 budgets with five engines each take 2 MB
constexpr std::int64_t kMaxCount = std::int64_t{1} << 40;
constexpr std::size_t kDigits = 64;
using Names = std::unordered_set<std::string>;

void check_unique(const std::vector<std::string>& names, const Where& where) {
  Names seen;
  for (const std::string& name : names) {
    if (!seen.insert(name).second) throw InputError(where.text(), "every name once", show(name) + " twice");
  }
}

template <typename Items, typename Name>
std::vector<std::string> names_of(const Items& items, Name&& name) {
  std::vector<std::string> names;
  for (const auto& item : items) names.push_back(name(item));
  return names;
}

void check_files(const std::vector<FileEntry>& files, const Where& where) {
  check_unique(names_of(files, [](const FileEntry& entry) { return entry.path; }), where);
  for (const FileEntry& entry : files) {
    check_relative(entry.path, where);
    if (!is_digest(entry.sha256)) {
      throw InputError(where.note(entry.path).text(), "a sha256 of 64 hex digits", show(entry.sha256));
    }
  }
}

void check_counts(const EngineEntry& engine, const Where& where) {
  const std::pair<const char*, std::int64_t> counts[] = {{"max_context", engine.max_context},
                                                         {"max_tokens", engine.max_tokens},
                                                         {"max_batch", engine.max_batch}};
  for (const auto& [name, value] : counts) {
    if (value < 1 || value > kMaxCount) {
      throw InputError(where.note(name).text(), "1 to " + std::to_string(kMaxCount), std::to_string(value));
    }
  }
  if (engine.max_tokens > engine.max_context) {
    throw InputError(where.text(), "max_tokens up to max_context",
                     std::to_string(engine.max_tokens) + " and " + std::to_string(engine.max_context));
  }
}

std::string port_text(const OutputPort& port) {
  return port.name + " " + port.dtype + " " + shape_text(port.shape);
}

/// What they take on a card is reckoned from the widths.
void check_logits(const EngineEntry& engine, const OutputPort& logits, const Where& where) {
  const auto same = [](const Dim& a, const Dim& b) { return a.size == b.size && a.symbol == b.symbol; };
  bool is_one = false;
  std::string found;
  for (const OutputPort& port : engine.outputs) {
    if (port.input) continue;
    is_one = found.empty() && port.name == logits.name && port.dtype == logits.dtype &&
             std::equal(port.shape.begin(), port.shape.end(), logits.shape.begin(), logits.shape.end(), same);
    found += (found.empty() ? "" : ", ") + port_text(port);
  }
  if (!is_one)
    throw InputError(where.note("outputs").text(), "one that is no state, " + port_text(logits),
                     found.empty() ? "none" : show(found));
}

void check_engine(const EngineEntry& engine, const OutputPort& logits, const Where& where) {
  check_name(engine.target, where.note("target"));
  check_counts(engine, where);
  if (engine.plugin.has_value() != (engine.ops == "plugin")) {
    throw InputError(where.note("plugin").text(), "a library if and only if ops is plugin",
                     engine.plugin ? show(engine.plugin->library) : "none");
  }
  if (engine.plugin) check_file_name(engine.plugin->library, where.note("plugin"));
  if (engine.plugin && engine.plugin->carried) {
    const CarriedLibrary& carried = *engine.plugin->carried;
    if (!is_digest(carried.sha256) || carried.size == 0)
      throw InputError(where.note("plugin").text(), "size and sha256 of a library",
                       std::to_string(carried.size) + " bytes of " + show(carried.sha256));
  }
  Names inputs;
  for (const InputPort& port : engine.inputs) inputs.insert(port.name);
  for (const OutputPort& port : engine.outputs) {
    if (port.input.has_value() == port.alias.has_value() && (!port.input || inputs.count(*port.input)))
      continue;
    const std::string note = "output " + show(port.name);
    throw InputError(where.note(note).text(), "an input with its alias rule",
                     port.input ? show(*port.input) : "none");
  }
  check_logits(engine, logits, where);
}

void check_budget(const BudgetEntry& budget, const Names& known, const OutputPort& logits,
                  const Where& where) {
  check_name(budget.name, where.note("name"));
  if (budget.name.empty() || budget.name == "auto")  // nobody could ask for it
    throw InputError(where.note("name").text(), "a name other than auto",
                     budget.name.empty() ? "none" : budget.name);
  std::vector<std::string> named = {budget.model};
  for (const auto* path : {&budget.weights, &budget.golden, &budget.report}) {
    if (*path) named.push_back(**path);
  }
  for (const EngineEntry& engine : budget.engines) named.push_back(engine.file);
  for (const std::string& path : named) {
    if (!known.count(path)) throw InputError(where.text(), "files that the manifest lists", show(path));
  }
  const std::size_t pattern = code_points(budget.pattern);
  const auto layers = static_cast<std::size_t>(budget.layers);
  if (pattern != layers || layers != budget.kept_layers.size()) {
    throw InputError(where.text(), "pattern, layers and kept_layers of one length",
                     std::to_string(pattern) + ", " + std::to_string(layers) + " and " +
                         std::to_string(budget.kept_layers.size()));
  }
  check_unique(names_of(budget.states, [](const StateEntry& state) { return state.name; }),
               where.note("states"));
  const auto key = [](const EngineEntry& e) {
    return e.target + " at " + std::to_string(e.max_context) + ", " + e.ops + ",";
  };
  check_unique(names_of(budget.engines, key), where.note("engines"));
  for (const EngineEntry& engine : budget.engines) {
    const std::string note = "engine " + show(engine.file);
    check_engine(engine, logits, where.note(note));
  }
}

void check(const Manifest& manifest, const Where& where) {
  check_files(manifest.files, where.note("files"));
  check_files(manifest.external_weights, where.note("external_weights"));
  check_unique(names_of(manifest.budgets, [](const BudgetEntry& b) { return b.name; }),
               where.note("budgets"));
  if (manifest.budgets.empty()) throw InputError(where.note("budgets").text(), "at least one", "none");
  Names known;
  for (const FileEntry& entry : manifest.files) known.insert(entry.path);
  for (const BudgetEntry& budget : manifest.budgets) {
    const std::string note = "budget " + show(budget.name);
    check_budget(budget, known, logits_port(budget.widths.vocab_size, manifest.logits == "all"),
                 where.note(note));
  }
}

/// Removes a member of an object and gives its value, null where there is none.
Value pop(Value& value, std::string_view key) {
  const auto found = value.find(std::string(key));
  if (found == value.end()) return Value();
  Value result = std::move(*found);
  value.erase(found);
  return result;
}

/// Where the only seal's digits start; npos when there is none or more than one.
std::size_t find_seal(std::string_view data) {
  constexpr std::string_view kKey = "\"seal\": \"";
  std::size_t result = std::string_view::npos;
  for (std::size_t at = data.find(kKey); at != std::string_view::npos; at = data.find(kKey, at + 1)) {
    const std::string_view rest = data.substr(at + kKey.size());
    if (rest.size() <= kDigits || rest[kDigits] != '"' || !is_digest(rest.substr(0, kDigits))) continue;
    if (result != std::string_view::npos) return std::string_view::npos;
    result = at + kKey.size();
  }
  return result;
}

/// What lies at the path of a bundle that has no manifest.
std::string instead_of_bundle(const std::filesystem::path& folder) {
  std::error_code none;
  if (std::filesystem::is_directory(folder, none)) return "no manifest.json in it";
  return std::filesystem::exists(folder, none) ? "a file" : "no such folder";
}

}  // namespace

std::string BudgetEntry::budget() const {
  const std::string ending = "." + quantisation.value_or("");
  const bool named = quantisation && name.size() >= ending.size() &&
                     name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
  return named ? name.substr(0, name.size() - ending.size()) : name;
}

bool by_size(const BudgetEntry& a, const BudgetEntry& b) {
  const auto key = [](const BudgetEntry& entry) {
    return std::make_tuple(-entry.parameters, entry.budget(), entry.quantisation.has_value(), entry.name);
  };
  return key(a) < key(b);
}

BudgetSize BudgetEntry::size(const EngineEntry& engine) const {
  return {weight_bytes, state_bytes, kv_bytes_per_token, engine.activation, engine.activation_measured};
}

Manifest read_manifest(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "manifest.json";
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::is_regular_file(status)) {
    const bool unknown = status.type() == std::filesystem::file_type::none;
    throw InputError(path_text(folder), "a bundle", unknown ? error.message() : instead_of_bundle(folder),
                     "name the folder that elastic-export wrote");
  }
  return advised("export the bundle again, or use the elastic_runtime of the version that wrote it", [&] {
    return parse_manifest(read_bytes(path, kReadLimit, "a manifest that can be read"), path_text(path));
  });
}

Manifest parse_manifest(const std::string& data, const std::string& where) {
  const Where root(where);
  if (data.size() > kReadLimit)
    throw InputError(where, "at most " + std::to_string(kReadLimit) + " bytes", "more");
  if (!is_sealed(data)) {
    throw DamageError(where, "the bytes that were sealed", "other ones", "copy the bundle again");
  }
  Value value = parse_json(data, where);
  const Value schema = pop(value, "schema");
  if (schema != kSchema) {
    throw InputError(where + ": schema", in_quotes(kSchema), show_value(schema),
                     "use the elastic_runtime of the version that wrote the bundle");
  }
  pop(value, "seal");
  Manifest manifest = decode_manifest(value, root);
  check(manifest, root);
  std::stable_sort(manifest.budgets.begin(), manifest.budgets.end(), by_size);
  return manifest;
}

bool is_sealed(const std::string& data) {
  const std::size_t at = find_seal(data);
  return at != std::string::npos && reseal(data).compare(at, kDigits, data, at, kDigits) == 0;
}

std::string reseal(std::string data) {
  const std::size_t at = find_seal(data);
  if (at == std::string::npos) return data;
  data.replace(at, kDigits, kDigits, '0');
  data.replace(at, kDigits, sha256(data));
  return data;
}

}  // namespace elastic
