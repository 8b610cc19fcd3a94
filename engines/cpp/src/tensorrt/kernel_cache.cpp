// Where compiled kernels are kept unless a program says otherwise: the folder and the names of
// elastic_runtime/tensorrt/engine_cache.py, so that both runtimes compile once.
#include <cstdlib>

#include "elastic_runtime/tensorrt_backend.h"
#include "files.h"

namespace elastic {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::filesystem::path folder() {
  if (const std::string given = variable("ELASTIC_CACHE"); !given.empty()) return path_of(given) / "kernels";
  std::string home = variable("HOME");
  if (home.empty()) home = variable("USERPROFILE");
  const std::string caches = variable("XDG_CACHE_HOME");
  const std::filesystem::path all = caches.empty() ? path_of(home) / ".cache" : path_of(caches);
  return all / "elastic-runtime" / "kernels";
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

std::filesystem::path default_runtime_cache(const Bundle& bundle, const EngineEntry& engine,
                                            const std::string& card) {
  std::string digest = "unlisted";
  for (const FileEntry& file : bundle.manifest().files) {
    if (file.path == engine.file) digest = file.sha256.substr(0, 16);
  }
  return folder() / path_of(digest + "-" + plain(card) + ".cache");
}

}  // namespace elastic
