#include "format/plugin_libraries.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>

#include "elastic_runtime/error.h"
#include "elastic_runtime/mapped_file.h"
#include "elastic_runtime/sha256.h"
#include "files.h"
#include "format/json.h"
#include "format/paths.h"
#include "format/records.h"

namespace elastic {
namespace {

namespace fs = std::filesystem;

constexpr char kName[] = "libraries.json", kLibrariesSchema[] = "elastic-plugins/1";
constexpr std::size_t kLibrariesLimit = std::size_t{1} << 20;  // of a whole folder's description, bytes
// plugins/common/abi.h writes it, JSON and a zero behind it.
constexpr std::string_view kMark = "elastic-plugins-abi/1 ";
const char kBuild[] =
    "install elastic-plugins, or build plugins/ again with CMake and name its folder with --plugins";

/// The whole number that all of `text` is.
std::optional<int> digits_of(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size() && value >= 0;
  return whole ? std::optional(value) : std::nullopt;
}

bool architecture_serves(const std::string& architecture, const std::string& capability) {
  const std::size_t dash = std::min(architecture.find('-'), architecture.size());
  const std::string_view kind =
      std::string_view(architecture).substr(std::min(dash + 1, architecture.size()));
  const std::optional<int> made = digits_of(std::string_view(architecture).substr(0, dash));
  // What CMake takes without naming any: whoever builds so knows for which card.
  if (!made) return architecture == "native" || architecture == "all" || architecture == "all-major";
  const std::size_t dot = std::min(capability.find('.'), capability.size());
  const std::optional<int> major = digits_of(std::string_view(capability).substr(0, dot)),
                           minor = digits_of(
                               std::string_view(capability).substr(std::min(dot + 1, capability.size())));
  if (!major || !minor) return false;
  const int card = *major * 10 + *minor;
  return (kind != "virtual" && *made / 10 == *major && *made <= card) || (kind != "real" && *made <= card);
}

/// What a library says of itself, read from its bytes and not by loading it.
struct Mark {
  std::string abi;
  std::vector<std::string> architectures;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

Mark mark_of(const fs::path& library) {
  const std::string where = path_text(library);
  const MappedFile file(library);
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  const std::size_t start = bytes.find(std::string(kMark) + "{");
  const std::size_t end = start == std::string_view::npos ? start : bytes.find('\0', start);
  if (end == std::string_view::npos)
    throw InputError(where, "a library of elastic plugins", "one that does not say its versions", kBuild);
  const Value facts =
      parse_json(bytes.substr(start + kMark.size(), end - start - kMark.size()), where + ": versions");
  const auto text = [&](const char* name) {
    const Value* const found = find(facts, name);
    const std::string* const said = found ? if_text(*found) : nullptr;
    return said ? *said : std::string("none");
  };
  return {text("tensorrt"), split(text("architectures"))};
}

PluginLibrary decode_library(const Value& value, const Where& where) {
  const Fields fields(value, where, {"file", "size", "sha256", "architectures"});
  PluginLibrary library{fields.text("file"), fields.integer("size"), fields.text("sha256"),
                        fields.list("architectures", as_text)};
  check_file_name(library.file, fields.where("file"));
  if (!is_digest(library.sha256))
    throw InputError(where.note(library.file).text(), "a sha256 of 64 hex digits", show(library.sha256),
                     kBuild);
  return library;
}

PluginLibraries described(const fs::path& folder) {
  const std::string file = path_text(folder / kName);
  const Where where(file);
  const Value value = read_json(folder / kName, kLibrariesLimit);
  const Fields fields(value, where, {"schema", "version", "abi", "cuda", "libraries"});
  if (fields.text("schema") != kLibrariesSchema)
    throw InputError(fields.where("schema").text(), in_quotes(kLibrariesSchema),
                     show(in_quotes(fields.text("schema"))), kBuild);
  (void)fields.text("version");
  (void)fields.text("cuda");
  return {folder, fields.text("abi"), fields.list("libraries", decode_library)};
}

std::vector<fs::path> library_files(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const std::string kind = entry.path().extension().string();
    const bool is_one = path_text(entry.path().filename()).find("elastic_plugins") != std::string::npos;
    if (is_one && (kind == ".so" || kind == ".dll") && entry.is_regular_file(none))
      paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

PluginLibraries described_by_themselves(const fs::path& folder) {
  const std::vector<fs::path> paths = library_files(folder);
  if (paths.empty())
    throw InputError(path_text(folder), std::string(kName) + " or a library of elastic plugins",
                     "no such file", kBuild);
  PluginLibraries found{folder, {}, {}};
  std::set<std::string> headers;
  for (const fs::path& path : paths) {
    Mark mark = mark_of(path);
    const FileDigest digest = file_digest(path);
    if (found.libraries.empty()) found.abi = mark.abi;
    headers.insert(mark.abi);
    found.libraries.push_back({path_text(path.filename()), static_cast<std::int64_t>(digest.size),
                               digest.sha256, std::move(mark.architectures)});
  }
  if (headers.size() == 1) return found;
  std::string listed;
  for (const std::string& each : headers) listed += (listed.empty() ? "" : ", ") + each;
  throw InputError(path_text(folder), "libraries of one build", "headers " + listed, kBuild);
}

}  // namespace

bool PluginLibrary::serves(const std::string& capability) const {
  return std::any_of(architectures.begin(), architectures.end(),
                     [&](const std::string& name) { return architecture_serves(name, capability); });
}

const PluginLibrary* PluginLibraries::smallest(const std::string& capability) const {
  const auto rank = [](const PluginLibrary& each) {
    return std::tuple(each.architectures.size(), each.size, std::string_view(each.file));
  };
  const PluginLibrary* best = nullptr;
  for (const PluginLibrary& each : libraries) {
    if (each.serves(capability) && (!best || rank(each) < rank(*best))) best = &each;
  }
  return best;
}

fs::path PluginLibraries::checked(const PluginLibrary& library) const {
  const fs::path file = path / path_of(library.file);
  const std::string expected = "sha256 " + library.sha256.substr(0, 12) + "\u2026, as its " + kName + " says";
  std::string found;
  try {
    const std::string digest = file_digest(file).sha256;
    if (digest == library.sha256) return file;
    found = digest.substr(0, 12) + "\u2026";
  } catch (const InputError& error) {
    found = error.found;
  }
  throw BuildError(path_text(file), expected, found, kBuild);
}

PluginLibraries read_plugin_libraries(const fs::path& folder) {
  std::error_code none;
  try {
    return fs::is_regular_file(folder / kName, none) ? described(folder) : described_by_themselves(folder);
  } catch (const InputError& error) {  // the readers of a format cannot know where another file comes from
    throw InputError(error.subject, error.expected, error.found, error.todo.empty() ? kBuild : error.todo);
  }
}

}  // namespace elastic
