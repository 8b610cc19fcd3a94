// What a safetensors file says of itself. Private to the library: where tensors lie stands in weights.json.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace elastic {

/// The text of a key of the file's `__metadata__`, or `otherwise`. Throws InputError as read_metadata of
/// elastic_runtime/format/safetensors.py does: no such file, truncated, an absurd length, no JSON.
std::string metadata_of(const std::filesystem::path& path, std::string_view key,
                        const std::string& otherwise);

}  // namespace elastic
