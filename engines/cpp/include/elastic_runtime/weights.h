// `weights.json`, schemas `elastic-weights/1` and `/2`: where every weight input of a sub-model comes from.
//
// Each input names a tensor of the parent by file, byte offset, dtype and shape, and per axis the runs
// [start, count] that are kept; the result is row-major and contiguous. The rules are those of
// elastic_runtime/format/weights.py. Version 2 has int8 besides: slices of a parent in eight bits, its
// matrices transposed and joined as the inputs want them. In memory an input is a list of such slices, one
// behind the other along an axis; the file has room for one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "elastic_runtime/mapped_file.h"
#include "elastic_runtime/slicing.h"

namespace elastic {

/// Runs of a tensor that a file holds: what weights.json says of an input.
struct StoredSlice {
  std::string file;
  std::int64_t offset = 0;
  std::string dtype;  ///< bf16, fp16, fp32 or int8
  std::vector<std::int64_t> parent_shape, shape;
  TensorRuns runs;

  std::int64_t nbytes() const;
  std::int64_t parent_nbytes() const;
};

/// One weight input of a sub-model: slices of one dtype that agree on all axes but `axis`, at least one.
/// `WeightFiles` refuses any others by name.
struct WeightInput {
  std::string name;
  std::vector<StoredSlice> parts;
  std::size_t axis = 0;

  std::vector<std::int64_t> shape() const;  ///< of the result
  std::int64_t nbytes() const;              ///< of the result
};

/// All weight inputs of a sub-model, in the order of the file. `source` names it in errors.
struct WeightRecipe {
  std::vector<WeightInput> inputs;
  std::string source = "weights.json";

  std::int64_t nbytes() const;
};

WeightRecipe read_recipe(const std::filesystem::path& path);

/// Check parsed JSON. Throws InputError that names the file and the input.
WeightRecipe parse_recipe(const std::string& data, const std::string& source = "weights.json");

/// Bytes of an element of a recipe's dtype; 0 for an unknown one.
std::int64_t itemsize(const std::string& dtype);

/// One weight: a view of the mapped file where it is one block of it, else a copy. Keeps what it needs
/// alive.
struct Weight {
  const WeightInput* input = nullptr;
  const std::byte* data = nullptr;
  std::size_t size = 0;
  std::shared_ptr<const void> owner;
};

/// The files of a recipe, mapped; all of them are checked before the first byte is read.
class WeightFiles {
 public:
  /// @param directory the folder of weights.json
  /// @param external  where the parent's files are, for a bundle that holds only their names
  /// Throws InputError: a file is missing or ends before a tensor does; parts that make no tensor.
  WeightFiles(WeightRecipe recipe, const std::filesystem::path& directory,
              const std::optional<std::filesystem::path>& external = std::nullopt);

  const WeightRecipe& recipe() const { return recipe_; }

  /// `on_bytes` hears how many bytes of the parent are read next, from any thread; what it throws ends the
  /// loading. Throws InputError: a file cannot be read, or has become shorter.
  Weight load(const WeightInput& input, const std::function<void(std::size_t)>& on_bytes = {}) const;

  /// A part's tensor in its file and the copies that make the part, their targets in the whole input: for a
  /// device, to make them itself.
  struct Source {
    std::shared_ptr<const MappedFile> file;
    std::uint64_t offset;  ///< of the tensor's first byte
    std::vector<Block> blocks;

    const std::byte* data() const { return file->data() + offset; }
    /// Reads the tensor, for `read_blocks`.
    Read read() const;
  };
  std::vector<Source> sources(const WeightInput& input) const;

 private:
  WeightRecipe recipe_;
  std::map<std::string, std::shared_ptr<const MappedFile>> files_;
};

}  // namespace elastic
