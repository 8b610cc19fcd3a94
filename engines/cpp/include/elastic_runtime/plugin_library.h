// The plugin library of an engine: found, and checked before it is loaded.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "elastic_runtime/bundle.h"

namespace elastic {

/// What a library is called here: `libelastic_plugins.so` of the manifest is `elastic_plugins.dll` on
/// Windows.
std::string library_name(const std::string& name);

/// The TensorRT interface that a library was made for, such as `rtx-1.7`, read from its bytes. Throws
/// InputError: no mark.
std::string plugin_abi(const std::filesystem::path& library);

/// Where plugin libraries are looked for, in order: `folder` and nowhere else where it is given; else the
/// bundle, the folder of the engine, the folder that the bundle lies in.
std::vector<std::filesystem::path> plugin_folders(const Bundle& bundle, const EngineEntry& engine,
                                                  const std::optional<std::filesystem::path>& folder);

/// The library that the engine needs, the first in `plugin_folders`. Throws UnavailableError: in none of
/// them, or made for another TensorRT.
std::filesystem::path find_plugin(const Bundle& bundle, const EngineEntry& engine,
                                  const std::optional<std::filesystem::path>& folder);

}  // namespace elastic
