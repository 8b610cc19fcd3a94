#include "elastic_runtime/plugin_library.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "elastic_runtime/error.h"
#include "format/engine_code.h"
#include "files.h"
#include "format/plugin_libraries.h"

namespace elastic {
namespace {

const char kGetOne[] =
    "install elastic-plugins, or build plugins/ with CMake, and name the folder of its libraries with "
    "--plugins";

// Libraries of NVIDIA's public headers were shown to fit: engines are built through their creators.
bool fits(const std::string& abi, const std::string& wanted) {
  return abi == wanted || (abi == "enterprise-11.1" && wanted == "rtx-1.7");
}

std::string listed_architectures(const PluginLibraries& libraries) {
  std::set<std::string> held;
  for (const PluginLibrary& each : libraries.libraries)
    held.insert(each.architectures.begin(), each.architectures.end());
  std::string text;
  for (const std::string& name : held) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void check_known(const EngineEntry& engine, [[maybe_unused]] const std::optional<PluginLibraries>& libraries,
                 [[maybe_unused]] bool trusted) {
  const CarriedLibrary& carried = *engine.plugin->carried;
#ifdef _WIN32
  throw UnavailableError(engine.file, "a plugin library for Windows",
                         carried.file + " in it, which is for Linux",
                         "take an engine of native ops: export with --ops native");
#else
  const auto is_it = [&](const PluginLibrary& library) { return library.sha256 == carried.sha256; };
  if (trusted) return;
  if (libraries && std::any_of(libraries->libraries.begin(), libraries->libraries.end(), is_it)) return;
  const std::string here =
      libraries ? path_text(libraries->path) + " knows others" : "no folder of libraries was named";
  throw UnavailableError(
      engine.file, "a plugin library in it that is known here",
      "one of sha256 " + carried.sha256.substr(0, 12) + "\u2026, and " + here,
      "name the folder of the elastic-plugins that it was exported with, or, if you trust whoever made the "
      "bundle, say so with --trust-engine");
#endif
}

std::filesystem::path outside(const EngineEntry& engine, const std::string& capability,
                              const std::optional<PluginLibraries>& libraries) {
  if (!libraries)
    throw UnavailableError(library_name(engine.plugin->library), "a folder of plugin libraries", "none named",
                           kGetOne);
  constexpr std::string_view kPrefix = "tensorrt-";
  const std::string& abi = engine.plugin->abi;
  const std::string wanted = abi.compare(0, kPrefix.size(), kPrefix) == 0 ? abi.substr(kPrefix.size()) : abi;
  const std::string where = path_text(libraries->path);
  if (!fits(libraries->abi, wanted))
    throw UnavailableError(where, "libraries for " + wanted, "those for " + libraries->abi, kGetOne);
  const PluginLibrary* const library = libraries->smallest(capability);
  if (!library)
    throw UnavailableError(where, "a library for compute capability " + capability,
                           "code for " + listed_architectures(*libraries), kGetOne);
  return libraries->checked(*library);
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

PluginSource plugin_source(const EngineEntry& engine, const std::string& capability,
                           const std::optional<std::filesystem::path>& folder, bool trusted) {
  if (!engine.plugin) return {};
  const std::optional<PluginLibraries> libraries =
      folder ? std::optional(read_plugin_libraries(*folder)) : std::nullopt;
  if (!engine.plugin->carried) return {outside(engine, capability, libraries), false};
  check_known(engine, libraries, trusted);
  return {std::nullopt, true};
}

void check_code(std::string_view bytes, const EngineEntry& engine) {
  const CarriedLibrary* carried =
      engine.plugin && engine.plugin->carried ? &*engine.plugin->carried : nullptr;
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
