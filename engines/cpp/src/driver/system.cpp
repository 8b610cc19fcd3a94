// Memory and process on POSIX and on Windows; beside mapped_file.cpp the only file that knows which.
#include "driver/system.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <string_view>
#include <vector>

#include "files.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <dlfcn.h>
#include <pwd.h>
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

/// The text of a file; none where it cannot be read.
std::optional<std::string> text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

/// What stands behind the name at the start of a line, none: empty.
std::string_view line_of(std::string_view text, std::string_view name) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (line.substr(0, name.size()) == name) return line.substr(name.size());
    at = end + 1;
  }
  return {};
}

/// Folders of the process's group and of the groups around it (version 2).
std::vector<std::filesystem::path> groups_of(const std::filesystem::path& root) {
  std::vector<std::filesystem::path> groups{root / "sys/fs/cgroup"};
  const std::string text = text_of(root / "proc/self/cgroup").value_or("");
  for (const auto& part : path_of(std::string(line_of(text, "0::"))).relative_path()) {
    if (!part.empty() && part != "." && part != "..") groups.push_back(groups.back() / part);
  }
  return groups;
}

/// What a group has left; one without a limit, or that is not visible from here: the largest count.
std::int64_t room_of(const std::filesystem::path& group) {
  const auto limit = text_of(group / "memory.max"), used = text_of(group / "memory.current"),
             stat = text_of(group / "memory.stat");
  return limit && used && stat ? left_of(*limit, *used, *stat) : kMost;
}

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

std::int64_t left_of(const std::string& limit, const std::string& used, const std::string& stat) {
  const std::int64_t most = number_of(limit), taken = number_of(used);
  if (most < 0 || taken < 0) return kMost;
  std::int64_t dropped = 0;
  for (const char* name : {"inactive_file ", "active_file "})
    dropped = plus(dropped, std::max<std::int64_t>(0, number_of(line_of(stat, name))));
  return std::max<std::int64_t>(0, plus(most - taken, dropped));
}

std::int64_t free_ram_of(const std::filesystem::path& root) {
  std::int64_t free = available_of(text_of(root / "proc/meminfo").value_or(""));
  for (const auto& group : groups_of(root)) free = std::min(free, room_of(group));
  return free;
}

#ifdef _WIN32

std::int64_t free_ram() {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  return GlobalMemoryStatusEx(&status) ? static_cast<std::int64_t>(status.ullAvailPhys) : kMost;
}

std::int64_t process_id() { return static_cast<std::int64_t>(GetCurrentProcessId()); }

std::filesystem::path home_folder() {
  for (const wchar_t* name : {L"HOME", L"USERPROFILE"}) {
    if (const wchar_t* value = _wgetenv(name); value && *value) return value;
  }
  return {};
}

void* load_system_library(const char* name) {
  return LoadLibraryExA(name, nullptr, LOAD_LIBRARY_SEARCH_SYSTEM32);
}

void* library_function(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}

#else

std::int64_t free_ram() {
  const std::int64_t free = free_ram_of("/");
#ifdef _SC_AVPHYS_PAGES
  if (free == kMost) return times(sysconf(_SC_AVPHYS_PAGES), sysconf(_SC_PAGESIZE));
#endif
  return free;
}

std::int64_t process_id() { return getpid(); }

std::filesystem::path home_folder() {
  if (const char* value = std::getenv("HOME"); value && *value) return value;
  const passwd* const user = getpwuid(getuid());
  return user && user->pw_dir ? user->pw_dir : "";
}

void* load_system_library(const char* name) { return dlopen(name, RTLD_LAZY | RTLD_LOCAL); }

void* library_function(void* library, const char* name) { return dlsym(library, name); }

#endif

}  // namespace elastic
