// `libraries.json`, schema `elastic-plugins/1`: the plugin libraries that a folder holds; the same rules as
// elastic_runtime/format/plugin_libraries.py. Private to the library.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace elastic {

/// A library of a folder. `architectures` as CMake spells them: `120-real` is machine code of sm_120,
/// `120-virtual` PTX of it, `120` both.
struct PluginLibrary {
  std::string file;
  std::int64_t size = 0;
  std::string sha256;
  std::vector<std::string> architectures;

  /// Whether it runs on cards of that compute capability, such as `12.0`: machine code on its generation,
  /// from its minor version on, PTX on everything from its version on.
  bool serves(const std::string& capability) const;
};

/// The libraries of a folder, of one build: `abi` names the TensorRT headers, such as `enterprise-11.1`.
struct PluginLibraries {
  std::filesystem::path path;
  std::string abi;
  std::vector<PluginLibrary> libraries;

  /// The library of the fewest architectures that runs on that card; null where none does.
  const PluginLibrary* smallest(const std::string& capability) const;

  /// The file of one of them, once its bytes are known to be the described ones. Throws BuildError: they are
  /// not; InputError: it cannot be read.
  std::filesystem::path checked(const PluginLibrary& library) const;
};

/// What a folder holds, by its `libraries.json` or, where there is none, by the libraries' own words. Throws
/// InputError: neither is there, or one of them is damaged.
PluginLibraries read_plugin_libraries(const std::filesystem::path& folder);

}  // namespace elastic
