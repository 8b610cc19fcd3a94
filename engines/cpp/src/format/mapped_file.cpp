// Memory mapping on POSIX and on Windows; what else differs between them is in driver/system.cpp and
// driver.cpp.
#include "elastic_runtime/mapped_file.h"

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

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& found) {
  throw InputError(path_text(path), "a file that can be mapped", found);
}

#ifndef _WIN32
void advise(const std::byte* data, std::uint64_t offset, std::uint64_t count, int advice) {
  static const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  const std::uint64_t start = offset - offset % page;
  // Advice is only ever about speed and memory: an older kernel that does not know it changes nothing.
  (void)madvise(const_cast<std::byte*>(data + start), offset + count - start, advice);
}
#endif

constexpr std::size_t kHugePage = std::size_t{2} << 20;  // bytes: x86's, and ARM's with pages of 4 KiB

}  // namespace

std::shared_ptr<std::byte[]> fresh_memory(std::size_t size) {
  if (size < 2 * kHugePage) return std::shared_ptr<std::byte[]>(new std::byte[size]);
  constexpr std::align_val_t kAligned{kHugePage};
  const auto free = [](std::byte* memory) { ::operator delete(memory, std::align_val_t{kHugePage}); };
  const std::shared_ptr<std::byte[]> memory(static_cast<std::byte*>(::operator new(size, kAligned)), free);
#ifdef MADV_HUGEPAGE
  advise(memory.get(), 0, size, MADV_HUGEPAGE);
#endif
  return memory;
}

#ifdef _WIN32

MappedFile::MappedFile(const std::filesystem::path& path) {
  const HANDLE file = CreateFileW(path.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING,
                                  FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) fail(path, "error " + std::to_string(GetLastError()));
  LARGE_INTEGER size{};
  const bool sized = GetFileSizeEx(file, &size) && size.QuadPart > 0;
  const HANDLE mapping = sized ? CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr) : nullptr;
  CloseHandle(file);  // the mapping keeps it open
  if (!sized) fail(path, "an empty file");
  if (!mapping) fail(path, "error " + std::to_string(GetLastError()));
  data_ = static_cast<const std::byte*>(MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0));
  CloseHandle(mapping);  // the view keeps it open
  if (!data_) fail(path, "error " + std::to_string(GetLastError()));
  size_ = static_cast<std::uint64_t>(size.QuadPart);
}

MappedFile::~MappedFile() { UnmapViewOfFile(data_); }

void MappedFile::fetch(std::uint64_t offset, std::uint64_t count) const {
  WIN32_MEMORY_RANGE_ENTRY range{const_cast<std::byte*>(data_ + offset), static_cast<SIZE_T>(count)};
  PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

void MappedFile::release(std::uint64_t offset, std::uint64_t count) const {
  VirtualUnlock(const_cast<std::byte*>(data_ + offset), static_cast<SIZE_T>(count));  // trims the working set
}

#else

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(path, std::strerror(errno));
  struct stat status{};
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size <= 0) {
    close(file);
    fail(path, "an empty or special file");
  }
  void* data = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
  const std::string reason = data == MAP_FAILED ? std::strerror(errno) : "";
  close(file);  // the mapping keeps it open
  if (data == MAP_FAILED) fail(path, reason);
  data_ = static_cast<const std::byte*>(data);
  size_ = static_cast<std::uint64_t>(status.st_size);
}

MappedFile::~MappedFile() { munmap(const_cast<std::byte*>(data_), static_cast<std::size_t>(size_)); }

void MappedFile::fetch(std::uint64_t offset, std::uint64_t count) const {
#ifdef __linux__
  constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ, Linux 5.14, absent from older headers
  advise(data_, offset, count, kPopulateRead);
#else
  advise(data_, offset, count, MADV_WILLNEED);
#endif
}

void MappedFile::release(std::uint64_t offset, std::uint64_t count) const {
  advise(data_, offset, count, MADV_DONTNEED);
}

#endif

}  // namespace elastic
