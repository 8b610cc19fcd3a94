// Paths inside a bundle: relative, `/` between the parts, never out of the folder. Private to the library.
#pragma once

#include <filesystem>
#include <string>

#include "format/records.h"

namespace elastic {

/// Throws InputError unless `text` is a plain path below its folder; `parents` leading `..` are allowed.
void check_relative(const std::string& text, const Where& where, int parents = 0);

/// Throws InputError unless `text` is the name of a file and no path: what is loaded as code lies where the
/// caller looks for it, nowhere else.
void check_file_name(const std::string& text, const Where& where);

/// Throws InputError about a name with control characters, which could steer a terminal.
void check_name(const std::string& text, const Where& where);

/// The file `root/relative`, refusing one that a symbolic link takes out of `root`.
std::filesystem::path inside(const std::filesystem::path& root, const std::string& relative);

}  // namespace elastic
