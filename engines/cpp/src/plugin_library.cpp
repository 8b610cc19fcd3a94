#include "elastic_runtime/plugin_library.h"

#include <string_view>
#include <vector>

#include "elastic_runtime/error.h"
#include "elastic_runtime/json.h"
#include "elastic_runtime/mapped_file.h"
#include "files.h"

namespace elastic {
namespace {

constexpr std::string_view kMark =
    "elastic-plugins-abi/1 ";  // plugins/common/abi.h writes it, JSON and a zero behind it

bool serves(const std::string& abi, const std::string& wanted) {
  return abi == wanted || "tensorrt-" + abi == wanted;
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
  const Value* abi = facts.find("tensorrt");
  const auto* text = abi ? abi->get<std::string>() : nullptr;
  if (!text) throw InputError(where + ": tensorrt", "text", abi ? show(*abi) : "no such field");
  return *text;
}

std::vector<std::filesystem::path> plugin_folders(const Bundle& bundle, const EngineEntry& engine,
                                                  const std::optional<std::filesystem::path>& folder) {
  if (folder) return {*folder};
  return {bundle.path(), (bundle.path() / path_of(engine.file)).parent_path(),
          std::filesystem::absolute(bundle.path() / "").parent_path().parent_path()};
}

std::filesystem::path find_plugin(const Bundle& bundle, const EngineEntry& engine,
                                  const std::optional<std::filesystem::path>& folder) {
  const std::string name = library_name(engine.plugin->library);
  std::string places;
  for (const auto& place : plugin_folders(bundle, engine, folder)) {
    const std::filesystem::path path = place / path_of(name);
    places += (places.empty() ? "" : ", ") + path_text(place);
    std::error_code none;
    if (!std::filesystem::is_regular_file(path, none)) continue;
    const std::string abi = plugin_abi(path);
    if (serves(abi, engine.plugin->abi)) return path;
    throw UnavailableError(path_text(path), "a library for " + engine.plugin->abi, "one for " + abi,
                           "build plugins/ against the SDK headers of that version");
  }
  throw UnavailableError(
      name, "the library in " + places, "no such file",
      "build plugins/ with CMake against the SDK of that version, and name its folder with "
      "--plugins");
}

}  // namespace elastic
