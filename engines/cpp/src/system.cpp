// Memory and process on POSIX and on Windows; beside mapped_file.cpp the only file that knows which.
#include "system.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>

#include "files.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <unistd.h>
#endif

namespace elastic {
namespace {

/// The whole number that text begins with; -1 where it begins with none.
std::int64_t number_of(std::string_view text) {
  std::int64_t value = -1;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

#ifndef _WIN32
std::string text_of(const char* path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}
#endif

}  // namespace

std::int64_t available_of(const std::string& meminfo) {
  constexpr std::string_view kName = "MemAvailable:";
  const std::size_t at = meminfo.find(kName);
  if (at == std::string::npos) return kMost;
  const std::size_t digits = meminfo.find_first_not_of(' ', at + kName.size());
  const std::int64_t kib =
      digits == std::string::npos ? -1 : number_of(std::string_view(meminfo).substr(digits));
  return kib < 0 ? kMost : times(kib, 1024);
}

std::int64_t left_of(const std::string& limit, const std::string& used) {
  const std::int64_t most = number_of(limit), taken = number_of(used);
  return most < 0 || taken < 0 ? kMost : std::max<std::int64_t>(0, most - taken);
}

#ifdef _WIN32

std::int64_t free_ram() {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  return GlobalMemoryStatusEx(&status) ? static_cast<std::int64_t>(status.ullAvailPhys) : kMost;
}

std::int64_t process_id() { return static_cast<std::int64_t>(GetCurrentProcessId()); }

#else

std::int64_t free_ram() {
  std::int64_t free = available_of(text_of("/proc/meminfo"));
#ifdef _SC_AVPHYS_PAGES
  if (free == kMost) free = times(sysconf(_SC_AVPHYS_PAGES), sysconf(_SC_PAGESIZE));
#endif
  const std::string group = "/sys/fs/cgroup/";  // version 2, then 1
  free = std::min(
      free, left_of(text_of((group + "memory.max").c_str()), text_of((group + "memory.current").c_str())));
  return std::min(free, left_of(text_of((group + "memory/memory.limit_in_bytes").c_str()),
                                text_of((group + "memory/memory.usage_in_bytes").c_str())));
}

std::int64_t process_id() { return getpid(); }

#endif

}  // namespace elastic
