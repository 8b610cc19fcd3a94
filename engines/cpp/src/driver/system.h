// What the library asks of the operating system beside files. Private to the library.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace elastic {

/// Bytes of main memory that this process can still take: the system's estimate, within the limits of
/// its groups.
std::int64_t free_ram();

/// The number of this process, for names that no other process uses.
std::int64_t process_id();

/// The user's home: HOME (USERPROFILE), else what the system knows of this user; empty where it knows none.
std::filesystem::path home_folder();

/// A library of the system or of a driver, by its name alone, as the system finds it (on Windows in its own
/// folder and nowhere else, least of all in the current one); null where there is none. It stays loaded.
void* load_system_library(const char* name);

/// A function of it; null where it has none of that name.
void* library_function(void* library, const char* name);

/// MemAvailable of the text of /proc/meminfo, bytes; nothing there: the largest count.
std::int64_t available_of(const std::string& meminfo);

/// What a control group has left, from the texts of its memory.max, memory.current and memory.stat; no limit:
/// the largest count. Its use counts the files that it has read; the kernel drops those before it refuses
/// memory.
std::int64_t left_of(const std::string& limit, const std::string& used, const std::string& stat);

/// What /proc and /sys below `root` say is free: the kernel's estimate, and what every limited group of the
/// process, from its own to the root, has left (cgroup v2). Nothing there: the largest count. Same as
/// driver/free_memory.py.
std::int64_t free_ram_of(const std::filesystem::path& root);

}  // namespace elastic
