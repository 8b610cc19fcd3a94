#include "format/safetensors.h"

#include <cstddef>
#include <cstdint>

#include "elastic_runtime/error.h"
#include "files.h"
#include "format/json.h"

namespace elastic {
namespace {

constexpr std::size_t kPrefix = 8;               // bytes: the header's length, little-endian
constexpr std::uint64_t kMaxHeader = 100000000;  // bytes

std::uint64_t little_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

Value header_of(const std::filesystem::path& path) {
  const std::string name = path_text(path), expected = "a readable safetensors file";
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) {
    const bool folder = std::filesystem::is_directory(path, none);
    throw InputError(name, "a safetensors file", folder ? "a folder" : "no such file");
  }
  const std::string prefix = read_bytes(path, kPrefix - 1, expected);
  if (prefix.size() < kPrefix)
    throw InputError(name, "a safetensors file", std::to_string(prefix.size()) + " bytes");
  const std::uint64_t length = little_endian(prefix);
  if (length > kMaxHeader)
    throw InputError(name + ", header length", "at most " + std::to_string(kMaxHeader) + " bytes",
                     std::to_string(length));
  const auto end = kPrefix + static_cast<std::size_t>(length);
  const std::string data = read_bytes(path, end - 1, expected);
  if (data.size() < end)
    throw InputError(name + ", header", std::to_string(length) + " bytes",
                     std::to_string(data.size() - kPrefix) + ": the file is truncated");
  return parse_json(std::string_view(data).substr(kPrefix), name + ", header");
}

}  // namespace

std::string metadata_of(const std::filesystem::path& path, std::string_view key,
                        const std::string& otherwise) {
  const Value header = header_of(path);
  const Value* metadata = find(header, "__metadata__");
  const Value* value = metadata ? find(*metadata, key) : nullptr;
  if (!value) return otherwise;
  const std::string* text = if_text(*value);
  return text ? *text : value->dump();
}

}  // namespace elastic
