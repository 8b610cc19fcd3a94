// Memory mapping on POSIX and on Windows; what else differs between them is in driver/system.cpp and
// driver.cpp.
#include "elastic_runtime/mapped_file.h"

#include <algorithm>
#include <new>
#include <string>

#include "elastic_runtime/error.h"
#include "files.h"
#include "format/fresh_memory.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

namespace elastic {
namespace {

constexpr char kCopyAgain[] = "copy that file again";

/// What to do about a file that the system refuses with that errno.
std::string todo_on(int error) {
  const std::string advice = advice_on(error);
  return advice.empty() ? kCopyAgain : advice;
}

/// `error`: the errno, where there is one.
[[noreturn]] void fail(const std::filesystem::path& path, const std::string& found, int error = 0) {
  throw InputError(path_text(path), "a file that can be mapped", found, todo_on(error));
}

constexpr std::size_t kMostRead = std::size_t{1} << 30;  // bytes at once: any system takes as many
constexpr std::size_t kHugePage = std::size_t{2} << 20;  // bytes: x86's, and ARM's with pages of 4 KiB

}  // namespace

std::shared_ptr<std::byte[]> fresh_memory(std::size_t size) {
  if (size < 2 * kHugePage) return std::shared_ptr<std::byte[]>(new std::byte[size]);
  constexpr std::align_val_t kAligned{kHugePage};
  const auto free = [](std::byte* memory) { ::operator delete(memory, std::align_val_t{kHugePage}); };
  const std::shared_ptr<std::byte[]> memory(static_cast<std::byte*>(::operator new(size, kAligned)), free);
#ifdef MADV_HUGEPAGE
  (void)madvise(memory.get(), size, MADV_HUGEPAGE);  // only ever about speed
#endif
  return memory;
}

void MappedFile::read(std::uint64_t offset, std::byte* into, std::size_t count) const {
  for (std::size_t done = 0; done < count;) {
    std::string found = "its end", todo = kCopyAgain;
    const std::size_t got = read_some(offset + done, into + done, count - done, found, todo);
    if (got == 0) {
      throw InputError(path_text(path_), "bytes from " + std::to_string(offset + done) + " on", found, todo);
    }
    done += got;
  }
}

#ifdef _WIN32

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const HANDLE file = CreateFileW(path.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING,
                                  FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) fail(path, "error " + std::to_string(GetLastError()));
  LARGE_INTEGER size{};
  const bool sized = GetFileSizeEx(file, &size) && size.QuadPart > 0;
  const HANDLE mapping = sized ? CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr) : nullptr;
  if (mapping) data_ = static_cast<const std::byte*>(MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0));
  const std::string reason = sized ? "error " + std::to_string(GetLastError()) : "an empty file";
  if (mapping) CloseHandle(mapping);  // the view keeps it open
  if (!data_) {
    CloseHandle(file);
    fail(path, reason);
  }
  file_ = reinterpret_cast<std::intptr_t>(file);
  size_ = static_cast<std::uint64_t>(size.QuadPart);
}

MappedFile::~MappedFile() {
  UnmapViewOfFile(data_);
  CloseHandle(reinterpret_cast<HANDLE>(file_));
}

std::size_t MappedFile::read_some(std::uint64_t offset, std::byte* into, std::size_t count,
                                  std::string& found, std::string&) const {
  OVERLAPPED place{};
  place.Offset = static_cast<DWORD>(offset);
  place.OffsetHigh = static_cast<DWORD>(offset >> 32);
  const auto most = static_cast<DWORD>(std::min(count, kMostRead));
  DWORD got = 0;
  if (ReadFile(reinterpret_cast<HANDLE>(file_), into, most, &got, &place)) return got;
  if (GetLastError() != ERROR_HANDLE_EOF) found = "error " + std::to_string(GetLastError());
  return 0;
}

#else

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(path, std::strerror(errno), errno);
  struct stat status{};
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size <= 0) {
    close(file);
    fail(path, "an empty or special file");
  }
  void* data = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
  if (data == MAP_FAILED) {
    const int error = errno;
    close(file);
    fail(path, std::strerror(error), error);
  }
  file_ = file;
  data_ = static_cast<const std::byte*>(data);
  size_ = static_cast<std::uint64_t>(status.st_size);
}

MappedFile::~MappedFile() {
  munmap(const_cast<std::byte*>(data_), static_cast<std::size_t>(size_));
  close(static_cast<int>(file_));
}

std::size_t MappedFile::read_some(std::uint64_t offset, std::byte* into, std::size_t count,
                                  std::string& found, std::string& todo) const {
  ssize_t got = -1;
  do {
    got = pread(static_cast<int>(file_), into, std::min(count, kMostRead), static_cast<off_t>(offset));
  } while (got < 0 && errno == EINTR);
  if (got >= 0) return static_cast<std::size_t>(got);
  found = std::strerror(errno);
  todo = todo_on(errno);
  return 0;
}

#endif

}  // namespace elastic
