// What the library asks of the operating system beside files. Private to the library.
#pragma once

#include <cstdint>
#include <string>

namespace elastic {

/// Bytes of main memory that this process can still take: the system's estimate, within the limit of its
/// group.
std::int64_t free_ram();

/// The number of this process, for names that no other process uses.
std::int64_t process_id();

/// MemAvailable of the text of /proc/meminfo, bytes; nothing there: the largest count.
std::int64_t available_of(const std::string& meminfo);

/// What a limit and a use leave, as the texts of a control group's files give them; no limit: the largest
/// count.
std::int64_t left_of(const std::string& limit, const std::string& used);

}  // namespace elastic
