#include "files.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "driver/system.h"
#include "elastic_runtime/error.h"

namespace elastic {

std::string path_text(const std::filesystem::path& path) { return path.generic_u8string(); }

std::filesystem::path path_of(const std::string& text) { return std::filesystem::u8path(text); }

bool replace_file(const std::filesystem::path& path, const void* data, std::size_t size) {
  std::filesystem::path made = path;
  made += "." + std::to_string(process_id()) + ".new";  // no other process writes this one
  std::error_code error;
  {
    std::ofstream file(made, std::ios::binary);
    file.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
    file.close();  // a full disk may show only here
    if (!file) error = std::make_error_code(std::errc::io_error);
  }
  if (!error) std::filesystem::rename(made, path, error);
  if (!error) return true;
  std::filesystem::remove(made, error);
  return false;
}

std::string advice_on(int error) {
  switch (error) {
    case EACCES:
    case EPERM:
      return "change who may use it, or name another place";
    case EIO:
    case ENXIO:
    case ENODEV:
#ifdef EREMOTEIO
    case EREMOTEIO:
#endif
#ifdef ESTALE
    case ESTALE:
#endif
      return "see that its disk is sound and still mounted";
    case ENAMETOOLONG:
      return "name a shorter path";
    case ELOOP:
    case ENOTDIR:
    case EISDIR:
      return "name a path of folders, without links in a circle";
    case ETXTBSY:
    case EBUSY:
      return "end the program that uses it";
    case EMFILE:
    case ENFILE:
      return "raise the limit of open files (ulimit -n)";
    case ENOMEM:
      return "close other programs";
    default:
      return "";
  }
}

std::string read_bytes(const std::filesystem::path& path, std::size_t limit, const std::string& expected) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const int error = errno;
    throw InputError(path_text(path), expected, error != 0 ? std::strerror(error) : "an error",
                     advice_on(error));
  }
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
