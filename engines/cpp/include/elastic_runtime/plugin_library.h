// The plugin library of an engine: found, and checked before it is loaded.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "elastic_runtime/bundle.h"
#include "elastic_runtime/choose.h"

namespace elastic {

/// What a library is called here: `libelastic_plugins.so` of the manifest is `elastic_plugins.dll` on
/// Windows.
std::string library_name(const std::string& name);

/// The TensorRT interface that a library was made for, such as `rtx-1.7`, read from its bytes. Throws
/// InputError: no mark.
std::string plugin_abi(const std::filesystem::path& library);

/// Where an engine's plugins come from: a file to load before it, or the engine itself, which may then run
/// the library that it carries. Never both: TensorRT takes a plugin's name once.
struct PluginSource {
  std::optional<std::filesystem::path> library;
  bool carried = false;
};

/// How an engine comes by its plugins; nothing is loaded. `folder` holds libraries that the caller vouches
/// for; no other place is asked, least of all the bundle, which is a download. `trusted`: the caller vouches
/// for the code inside the engine. Throws UnavailableError: no library that fits, or the one inside is none
/// of the folder's.
PluginSource plugin_source(const EngineEntry& engine, const std::optional<std::filesystem::path>& folder,
                           bool trusted);

/// Takes out of `budgets`, one after the other, the engines that `choose` would take for the request and whose
/// plugins are not found, so that the next best serves: the native one beside a plugin engine. `warn` hears of
/// it. Throws UnavailableError, the first one's reason: nothing fits without them.
void leave_out_without_plugins(std::vector<BudgetEntry>& budgets, const Request& request,
                               const std::optional<std::filesystem::path>& folder, bool trusted,
                               const std::function<void(const std::string&)>& warn);

/// Whether an engine file holds the library that its entry lists, byte for byte, and no other code for the
/// host. TensorRT for RTX 1.7.1 loads a library inside an engine while it reads it, whatever
/// `setEngineHostCodeAllowed` says, so this comes before. Throws DamageError.
void check_code(const Bundle& bundle, const EngineEntry& engine);

}  // namespace elastic
