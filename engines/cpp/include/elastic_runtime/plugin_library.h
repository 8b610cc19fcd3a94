// The plugin library of an engine: found, and checked before it is loaded.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "elastic_runtime/manifest.h"

namespace elastic {

/// What a library is called here: `libelastic_plugins.so` of the manifest is `elastic_plugins.dll` on
/// Windows.
std::string library_name(const std::string& name);

/// Where an engine's plugins come from: a file to load before it, or the engine itself, which may then run
/// the library that it carries. Never both: TensorRT takes a plugin's name once.
struct PluginSource {
  std::optional<std::filesystem::path> library;
  bool carried = false;
};

/// How an engine comes by its plugins on a card of that compute capability, such as `12.0`. Nothing is
/// loaded, and the engine is not read: `check_code` does. `folder` holds libraries that the caller vouches
/// for, as elastic-plugins and CMake's install of plugins/ leave them; no other place is asked, least of all
/// the bundle, which is a download. `trusted`: the caller vouches for the code inside the engine.
///
/// Throws UnavailableError: no library that fits, or the one inside is none of the folder's; InputError: the
/// folder holds no libraries, or its description is damaged; BuildError: the library there is not the one
/// that its description is of.
PluginSource plugin_source(const EngineEntry& engine, const std::string& capability,
                           const std::optional<std::filesystem::path>& folder, bool trusted);

/// Whether the bytes of an engine hold the library that its entry lists, byte for byte, and no other code for
/// the host. TensorRT for RTX 1.7.1 loads a library inside an engine while it reads it, whatever
/// `setEngineHostCodeAllowed` says, so this comes before, on the very bytes that TensorRT gets. Throws
/// DamageError.
void check_code(std::string_view bytes, const EngineEntry& engine);

}  // namespace elastic
