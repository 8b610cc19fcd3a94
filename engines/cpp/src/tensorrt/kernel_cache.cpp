// Where compiled kernels are kept unless a program says otherwise: the folder and the names of
// elastic_runtime/tensorrt/engine_cache.py, so that both runtimes compile once.
#include <cstdlib>

#include "elastic_runtime/tensorrt_backend.h"
#include "files.h"
#include "driver/system.h"

namespace elastic {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// nullopt where it would lie in a home that nobody knows, as of a container that runs under any user's
/// number.
std::optional<std::filesystem::path> folder() {
  if (const std::string given = variable("ELASTIC_CACHE"); !given.empty()) return path_of(given) / "kernels";
  if (const std::string caches = variable("XDG_CACHE_HOME"); !caches.empty())
    return path_of(caches) / "elastic-runtime" / "kernels";
  const std::filesystem::path home = home_folder();
  if (home.empty()) return std::nullopt;
  return home / ".cache" / "elastic-runtime" / "kernels";
}

/// Every run of other signs than letters and digits becomes one dash.
std::string plain(const std::string& text) {
  std::string name;
  for (const char sign : text) {
    const bool kept =
        (sign >= '0' && sign <= '9') || (sign >= 'A' && sign <= 'Z') || (sign >= 'a' && sign <= 'z');
    if (kept)
      name += sign;
    else if (name.empty() || name.back() != '-')
      name += '-';
  }
  return name;
}

}  // namespace

std::optional<std::filesystem::path> default_runtime_cache(const Bundle& bundle, const EngineEntry& engine,
                                                           const std::string& card) {
  const std::optional<std::filesystem::path> place = folder();
  if (!place) return std::nullopt;
  std::string digest = "unlisted";
  for (const FileEntry& file : bundle.manifest().files) {
    if (file.path == engine.file) digest = file.sha256.substr(0, 16);
  }
  return *place / path_of(digest + "-" + plain(card) + ".cache");
}

}  // namespace elastic
