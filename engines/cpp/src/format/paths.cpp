#include "format/paths.h"

#include <algorithm>
#include <string_view>
#include <system_error>
#include <vector>

#include "elastic_runtime/error.h"
#include "files.h"

namespace elastic {
namespace {

constexpr std::size_t kMaxPath = 1024;  // bytes; what a tar archive and every file system take
/// Signs that no path in a bundle has: some system gives them a meaning, or has no such names.
constexpr std::string_view kSigns = "\\:<>\"|?*";

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find('/', at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

bool is_plain(const std::string& text, int parents) {
  auto parts = split(text);
  while (parents-- > 0 && parts.size() > 1 && parts[0] == "..") parts.erase(parts.begin());
  const auto bad_part = [](std::string_view part) { return part.empty() || part == "." || part == ".."; };
  const auto bad_sign = [](unsigned char sign) {
    return sign < 32 || sign == 127 || kSigns.find(static_cast<char>(sign)) != std::string_view::npos;
  };
  return std::none_of(parts.begin(), parts.end(), bad_part) &&
         std::none_of(text.begin(), text.end(), bad_sign) && text.size() <= kMaxPath;
}

std::string shown(const std::string& text) { return "'" + show(text) + "'"; }

}  // namespace

void check_relative(const std::string& text, const Where& where, int parents) {
  if (is_plain(text, parents)) return;
  throw InputError(where.text(), "a relative path inside the bundle, parts divided by '/'", shown(text));
}

void check_file_name(const std::string& text, const Where& where) {
  if (is_plain(text, 0) && text.find('/') == std::string::npos) return;
  std::string expected = "a plain file name, without /";
  for (const char sign : kSigns) expected.append(" ").push_back(sign);
  throw InputError(where.text(), expected + " and control characters", shown(text));
}

void check_name(const std::string& text, const Where& where) {
  const std::string_view rest = text;
  for (std::size_t i = 0; i < rest.size(); ++i) {
    const auto byte = static_cast<unsigned char>(rest[i]);
    const bool high =
        byte == 0xC2 && i + 1 < rest.size() && static_cast<unsigned char>(rest[i + 1]) < 0xA0;  // C1
    if (byte < 32 || byte == 127 || high)
      throw InputError(where.text(), "a name without control characters", shown(text));
  }
}

std::filesystem::path inside(const std::filesystem::path& root, const std::string& relative) {
  namespace fs = std::filesystem;
  static const std::string todo = "replace the link by the file";
  std::error_code error;
  const fs::path path = fs::weakly_canonical(root / path_of(relative), error);
  const fs::path home = error ? root : fs::weakly_canonical(root, error);
  if (error) throw InputError(relative, "a file inside " + path_text(root), error.message(), todo);
  if (std::mismatch(home.begin(), home.end(), path.begin(), path.end()).first != home.end() || path == home) {
    throw InputError(relative, "a file inside " + path_text(root), "a link to " + path_text(path), todo);
  }
  return path;
}

}  // namespace elastic
