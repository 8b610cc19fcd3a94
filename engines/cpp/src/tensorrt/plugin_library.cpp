#include "elastic_runtime/plugin_library.h"

#include <algorithm>
#include <string_view>

#include "elastic_runtime/error.h"
#include "elastic_runtime/mapped_file.h"
#include "elastic_runtime/sha256.h"
#include "files.h"
#include "format/engine_code.h"
#include "format/json.h"

namespace elastic {
namespace {

constexpr std::string_view kMark =
    "elastic-plugins-abi/1 ";  // plugins/common/abi.h writes it, JSON and a zero behind it

// Libraries of NVIDIA's public headers were shown to fit: engines are built through their creators.
bool serves(const std::string& abi, const std::string& wanted) {
  const bool shown = abi == "enterprise-11.1" && (wanted == "rtx-1.7" || wanted == "tensorrt-rtx-1.7");
  return abi == wanted || "tensorrt-" + abi == wanted || shown;
}

}  // namespace

std::string library_name(const std::string& name) {
#ifdef _WIN32
  const std::size_t start = name.rfind("lib", 0) == 0 ? 3 : 0;
  const std::size_t end = name.rfind(".so");
  return end == std::string::npos ? name : name.substr(start, end - start) + ".dll";
#else
  return name;
#endif
}

std::string plugin_abi(const std::filesystem::path& library) {
  const std::string where = path_text(library);
  const MappedFile file(library);
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  const std::size_t start = bytes.find(std::string(kMark) + "{");
  const std::size_t end = start == std::string_view::npos ? start : bytes.find('\0', start);
  if (end == std::string_view::npos)
    throw InputError(where, "a plugin library of elastic-export", "no mark of one");
  const Value facts = parse_json(bytes.substr(start + kMark.size(), end - start - kMark.size()), where);
  const Value* abi = find(facts, "tensorrt");
  const std::string* text = abi ? if_text(*abi) : nullptr;
  if (!text) throw InputError(where + ": tensorrt", "text", abi ? show_value(*abi) : "no such field");
  return *text;
}

namespace {

// Whether the folder holds that library, under whatever name. A folder that cannot be read holds none.
bool holds(const std::filesystem::path& folder, const CarriedLibrary& library) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    if (!entry.is_regular_file(none) || static_cast<std::int64_t>(entry.file_size(none)) != library.size)
      continue;
    if (file_digest(entry.path()).sha256 == library.sha256) return true;
  }
  return false;
}

void check_known(const EngineEntry& engine, const std::optional<std::filesystem::path>& folder,
                 bool trusted) {
  const CarriedLibrary& carried = *engine.plugin->carried;
#ifdef _WIN32
  throw UnavailableError(engine.file, "a plugin library for Windows",
                         carried.file + " in it, which is for Linux", "take an engine of native ops");
#else
  if (trusted || (folder && holds(*folder, carried))) return;
  const std::string here = folder ? path_text(*folder) + " holds others" : "no folder of libraries was named";
  throw UnavailableError(
      engine.file, "a plugin library in it that is known here",
      "one of sha256 " + carried.sha256.substr(0, 12) + "\u2026, and " + here,
      "name the folder of the elastic-plugins that it was exported with, or, if you trust whoever made the "
      "bundle, say so with --trust-engine");
#endif
}

std::filesystem::path outside(const EngineEntry& engine, const std::optional<std::filesystem::path>& folder) {
  const char* todo =
      "install elastic-plugins, or build plugins/ with CMake, and name its folder with --plugins";
  const std::string name = library_name(engine.plugin->library);
  if (!folder) throw UnavailableError(name, "a folder of plugin libraries", "none named", todo);
  const std::filesystem::path path = *folder / path_of(name);
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none))
    throw UnavailableError(name, "the library in " + path_text(*folder), "no such file", todo);
  const std::string abi = plugin_abi(path);
  if (serves(abi, engine.plugin->abi)) return path;
  throw UnavailableError(path_text(path), "a library for " + engine.plugin->abi, "one for " + abi, todo);
}

}  // namespace

PluginSource plugin_source(const EngineEntry& engine, const std::optional<std::filesystem::path>& folder,
                           bool trusted) {
  if (!engine.plugin) return {};
  if (!engine.plugin->carried) return {outside(engine, folder), false};
  check_known(engine, folder, trusted);
  return {std::nullopt, true};
}

void leave_out_without_plugins(std::vector<BudgetEntry>& budgets, const Request& request,
                               const std::optional<std::filesystem::path>& folder, bool trusted,
                               const std::function<void(const std::string&)>& warn) {
  std::optional<UnavailableError> first;
  std::string left;
  while (true) {
    const Choice choice = choose(budgets, request);
    const Reckoning* chosen = choice.chosen();
    if (!chosen && first) throw *first;
    if (!chosen) return;
    const std::string file = chosen->engine->file;
    try {
      plugin_source(*chosen->engine, folder, trusted);
    } catch (const UnavailableError& error) {
      if (!first) {
        first.emplace(error);
        left = file;
      }
      for (BudgetEntry& budget : budgets) {
        const auto is_it = [&](const EngineEntry& engine) { return engine.file == file; };
        budget.engines.erase(std::remove_if(budget.engines.begin(), budget.engines.end(), is_it),
                             budget.engines.end());
      }
      continue;
    }
    if (first && warn)
      warn("warning: " + printable(file) + " in place of " + printable(left) + ": " + first->what());
    return;
  }
}

void check_code(const Bundle& bundle, const EngineEntry& engine) {
  const CarriedLibrary* carried =
      engine.plugin && engine.plugin->carried ? &*engine.plugin->carried : nullptr;
  const MappedFile file(bundle.file(engine.file));
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  const HostCode found = host_code(bytes, carried ? static_cast<std::uint64_t>(carried->size) : 0,
                                   carried ? carried->sha256 : std::string());
  if (found.unknown.empty() && found.known == (carried ? 1u : 0u)) return;
  const std::string expected =
      carried ? "the plugin library of sha256 " + carried->sha256.substr(0, 12) + "\u2026 in it"
              : "no code for the host in it";
  const std::string what = found.known ? "that and other code" : "other code";
  throw DamageError(engine.file, expected + ", as the manifest lists it",
                    found.unknown.empty() ? (found.known ? "it several times" : "none")
                                          : what + " at byte " + std::to_string(found.unknown[0]),
                    "do not run it: get the bundle from where it was made");
}

}  // namespace elastic
