#include "files.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "elastic_runtime/error.h"

namespace elastic {

std::string path_text(const std::filesystem::path& path) { return path.generic_u8string(); }

std::filesystem::path path_of(const std::string& text) { return std::filesystem::u8path(text); }

std::string read_bytes(const std::filesystem::path& path, std::size_t limit, const std::string& expected) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(path_text(path), expected, errno != 0 ? std::strerror(errno) : "an error");
  std::string data;
  while (file && data.size() <= limit) {
    const std::size_t before = data.size();
    const std::size_t wanted = std::min(kPiece, limit + 1 - before);
    data.resize(before + wanted);
    file.read(data.data() + before, static_cast<std::streamsize>(wanted));
    data.resize(before + static_cast<std::size_t>(file.gcount()));
  }
  if (file.bad()) throw InputError(path_text(path), expected, "a read error");
  return data;
}

}  // namespace elastic
