// Paths inside a bundle: relative, `/` between the parts, never out of the folder. Private to the library.
#pragma once

#include <filesystem>
#include <string>

#include "records.h"

namespace elastic {

/// Throws InputError unless `text` is a plain path below its folder; `parents` leading `..` are allowed.
void check_relative(const std::string& text, const Where& where, int parents = 0);

/// The file `root/relative`, refusing one that a symbolic link takes out of `root`.
std::filesystem::path inside(const std::filesystem::path& root, const std::string& relative);

}  // namespace elastic
