// The safetensors container: where every tensor of a file lies. Same rules and errors as
// elastic_runtime/format/safetensors.py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace elastic {

/// One tensor of a file: `offset` is the absolute byte of its first element. `dtype` is ours: bf16, fp16,
/// fp32, i64, ...
struct TensorEntry {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0, nbytes = 0;
};

/// Every tensor of a safetensors file, by ascending offset; the data is not read. Throws InputError naming
/// the file, and the tensor where there is one: truncated file, absurd header, duplicate entries, unknown
/// dtype, wrong sizes, holes.
std::vector<TensorEntry> read_safetensors_header(const std::filesystem::path& path);

/// The same for the first bytes of a file of `size` bytes that `name` names in errors.
std::vector<TensorEntry> parse_safetensors_header(std::string_view bytes, std::uint64_t size,
                                                  const std::string& name);

/// Bytes of one element of a dtype of ours; 0 for an unknown one.
std::int64_t itemsize(std::string_view dtype);

}  // namespace elastic
