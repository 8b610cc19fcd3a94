#include "elastic_runtime/bundle.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "advised.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/sha256.h"
#include "files.h"
#include "format/paths.h"
#include "format/safetensors.h"
#include "unicode.h"

namespace elastic {
namespace {

constexpr std::uintmax_t kCheapBytes = std::uintmax_t{1}
                                       << 20;  // digested whatever was asked: a few milliseconds in all

constexpr char kAgain[] = "copy the bundle again, or export it again";

/// Whether a path leads nowhere, whatever may be done with its folders.
bool is_gone(const std::error_code& error) {
  return error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory ||
         error == std::errc::too_many_symbolic_link_levels;
}

/// Up to twelve characters of a digest, as errors name it.
std::string begun(const std::string& digest) {
  std::size_t end = 0;
  for (int count = 0; count < 12 && end < digest.size(); ++count) (void)next_code_point(digest, end);
  return digest.substr(0, end);
}

/// Throws InputError where a file of quantised weights is another parent's: it would be as large, and every
/// value in its place.
void check_parent(const std::filesystem::path& file, const Checkpoint& checkpoint) {
  const std::string found = advised(kAgain, [&] { return metadata_of(file, "parent", "none"); });
  if (found == checkpoint.fingerprint) return;
  throw InputError(path_text(file),
                   "the quantised weights of " + checkpoint.name + ", " + begun(checkpoint.fingerprint) + "…",
                   "those of " + show(begun(found)) + "…", "copy the bundle again");
}

/// Compare a shard that a bundle only names with its entry. Throws as `check_file`.
void check_shard(const std::filesystem::path& folder, const FileEntry& entry, Check check,
                 const std::function<void(std::size_t)>& on_bytes) {
  try {
    check_file(folder / path_of(entry.path), entry, check, on_bytes);
  } catch (const DamageError& error) {
    throw DamageError(error.subject, error.expected, error.found,
                      "name the folder of the shards that the bundle was exported from, or export again with "
                      "those in this one");
  } catch (const InputError& error) {
    throw InputError(error.subject, error.expected, error.found,
                     "make it readable, or name another folder of the shards");
  }
}

}  // namespace

Bundle Bundle::open(const std::filesystem::path& path, Check check,
                    const std::optional<std::filesystem::path>& external,
                    const std::function<void(std::size_t)>& on_bytes) {
  Bundle bundle;
  bundle.path_ = path;
  bundle.external_ = external;
  bundle.manifest_ = read_manifest(path);
  if (external && bundle.manifest_.external_weights.empty()) {  // files there would go unchecked
    throw InputError("weights folder " + path_text(*external),
                     "none: " + path_text(path) + " holds its weights", "one", "leave it out");
  }
  for (const FileEntry& entry : bundle.manifest_.files)
    check_file(bundle.file(entry.path), entry, check, on_bytes);
  if (external) {
    for (const FileEntry& entry : bundle.manifest_.external_weights)
      check_shard(*external, entry, check, on_bytes);
  }
  return bundle;
}

Choice Bundle::choose(const Request& request, const std::string& budget) const {
  const std::vector<const BudgetEntry*> wanted = forms(budget);
  Choice choice = elastic::choose(manifest_.budgets, request);
  const auto other = [&](const Reckoning& reckoning) {
    return std::find(wanted.begin(), wanted.end(), reckoning.budget) == wanted.end();
  };
  auto& all = choice.reckonings;
  all.erase(std::remove_if(all.begin(), all.end(), other), all.end());
  return choice;
}

WeightRecipe Bundle::recipe(const BudgetEntry& budget) const {
  if (!budget.weights)
    throw InputError("budget " + in_quotes(budget.name), "shared or sliced weights", "embedded ones",
                     "read them from its model.onnx, or export with --weights shared");
  const std::filesystem::path path = path_ / path_of(*budget.weights);
  WeightRecipe recipe = read_recipe(path);
  std::set<std::string> files;
  for (const WeightInput& input : recipe.inputs) {
    for (const StoredSlice& part : input.parts) files.insert(part.file);
  }
  if (budget.quantisation) {
    for (const std::string& file : files)
      check_parent(path.parent_path() / path_of(file), manifest_.checkpoint);
  }
  return recipe;
}

WeightFiles Bundle::weights(const BudgetEntry& budget) const {
  WeightRecipe read = recipe(budget);
  const std::filesystem::path folder = (path_ / path_of(*budget.weights)).parent_path();
  const bool is_external = !manifest_.external_weights.empty();
  return WeightFiles(std::move(read), folder, is_external ? external_ : std::nullopt);
}

std::filesystem::path Bundle::file(const std::string& path) const { return inside(path_, path); }

void check_file(const std::filesystem::path& path, const FileEntry& entry, Check check,
                const std::function<void(std::size_t)>& on_bytes) {
  constexpr char kReadable[] = "make it readable, or copy the bundle again";
  const std::string name = path_text(path);
  std::error_code unread;
  const std::filesystem::file_status status = std::filesystem::status(path, unread);
  const bool is_regular = std::filesystem::is_regular_file(status);
  if (!is_regular && (!unread || is_gone(unread)))
    throw DamageError(name, "a file of the bundle", "none", kAgain);
  const std::uintmax_t size = is_regular ? std::filesystem::file_size(path, unread) : 0;
  if (unread) throw InputError(name, "a readable file", unread.message(), kReadable);
  if (size != static_cast<std::uintmax_t>(entry.size)) {
    throw DamageError(name, std::to_string(entry.size) + " bytes", std::to_string(size), kAgain);
  }
  if (check != Check::kDigests && size > kCheapBytes) return;
  const std::string digest = advised(kReadable, [&] { return file_digest(path, on_bytes).sha256; });
  if (digest != entry.sha256) {
    throw DamageError(name, "sha256 " + entry.sha256.substr(0, 12) + "…", digest.substr(0, 12) + "…", kAgain);
  }
}

}  // namespace elastic
