#include "elastic_runtime/weights.h"

#include <algorithm>
#include <tuple>

#include "advised.h"
#include "elastic_runtime/error.h"
#include "files.h"
#include "format/fresh_memory.h"
#include "format/manifest_decode.h"
#include "format/paths.h"
#include "format/records.h"

namespace elastic {
namespace {

constexpr char kWeights[] = "elastic-weights/1", kWeightsInt8[] = "elastic-weights/2";
constexpr std::size_t kMaxAxes = 8;

std::int64_t bytes_of(const std::vector<std::int64_t>& shape, const std::string& dtype) {
  std::int64_t bytes = itemsize(dtype);
  for (const std::int64_t size : shape) bytes = times(bytes, size);
  return bytes;
}

void check_runs(const Runs& runs, std::int64_t size, std::int64_t kept, const Where& where) {
  std::int64_t end = 0, total = 0;
  for (const Run& run : runs) {
    if (run.start < end || run.count < 1 || run.start + run.count > size) {
      throw InputError(where.text(), "ascending runs [start, count >= 1] within 0.." + std::to_string(size),
                       "[" + std::to_string(run.start) + ", " + std::to_string(run.count) + "] after " +
                           std::to_string(end));
    }
    end = run.start + run.count;
    total += run.count;
  }
  if (total != kept || kept < 1) {
    throw InputError(where.text(), "counts that add up to shape's " + std::to_string(kept) + ", at least 1",
                     std::to_string(total));
  }
}

std::string tuple_text(const std::vector<std::int64_t>& items) {
  std::string text = "(";
  for (const std::int64_t item : items) text += (text.size() > 1 ? ", " : "") + std::to_string(item);
  return text + (items.size() == 1 ? ",)" : ")");
}

void check_slice(const StoredSlice& item, const Where& where) {
  check_relative(item.file, where.note("file"), 1);
  const std::size_t axes = item.parent_shape.size();
  if (axes < 1 || axes > kMaxAxes || item.shape.size() != axes || item.runs.size() != axes) {
    throw InputError(
        where.text(),
        "parent_shape, shape and runs of 1 to " + std::to_string(kMaxAxes) + " axes each, equally many",
        std::to_string(axes) + ", " + std::to_string(item.shape.size()) + " and " +
            std::to_string(item.runs.size()));
  }
  const Where runs = where.note("runs");
  for (std::size_t axis = 0; axis < axes; ++axis) {
    check_runs(item.runs[axis], item.parent_shape[axis], item.shape[axis], runs.item(axis));
  }
  if (plus(item.offset, item.parent_nbytes()) > kMaxInt) {
    throw InputError(where.note("parent_shape").text(), "a tensor below 2^53 bytes",
                     show(tuple_text(item.parent_shape)));
  }
}

/// What an input may be stored in, in a file of that version.
std::vector<std::string_view> stored_dtypes(const std::string& schema) {
  if (schema == kWeights) return {"bf16", "fp16", "fp32"};
  return {"bf16", "fp16", "fp32", "int8"};
}

StoredSlice stored_slice(const Value& value, const Where& where,
                         const std::vector<std::string_view>& dtypes) {
  if (const Value* dtype = find(value, "dtype")) as_choice(*dtype, where.field("dtype"), dtypes);
  const Fields fields(value, where, {"file", "offset", "dtype", "parent_shape", "shape", "runs"});
  StoredSlice item;
  item.file = fields.text("file");
  item.offset = fields.integer("offset");
  item.dtype = fields.text("dtype");
  item.parent_shape = fields.list("parent_shape", as_integer);
  item.shape = fields.list("shape", as_integer);
  item.runs = fields.list("runs", decode_runs);
  check_slice(item, where);
  return item;
}

/// Different `texts`, in their order, as a sentence has them.
std::string listed(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += (all.empty() ? "" : " and ") + text;
  return all.empty() ? "none" : all;
}

bool agree(const std::vector<std::int64_t>& one, const std::vector<std::int64_t>& other, std::size_t axis) {
  if (one.size() != other.size() || axis >= one.size()) return false;
  for (std::size_t i = 0; i < one.size(); ++i) {
    if (i != axis && one[i] != other[i]) return false;
  }
  return true;
}

void check_parts(const WeightInput& item) {
  const std::string subject = "weight " + show(item.name);
  std::vector<std::string> dtypes, shapes;
  bool fit = true;
  for (const StoredSlice& part : item.parts) {
    if (std::find(dtypes.begin(), dtypes.end(), part.dtype) == dtypes.end()) dtypes.push_back(part.dtype);
    shapes.push_back(tuple_text(part.shape));
    fit = fit && agree(item.parts[0].shape, part.shape, item.axis);
  }
  if (dtypes.size() != 1) throw InputError(subject, "parts of one dtype", listed(dtypes));
  if (!fit) {
    const std::string axis = std::to_string(item.axis);
    throw InputError(subject, "parts that agree on all axes but " + axis, listed(shapes));
  }
}

const Value& only_inputs(const Value& value, const std::string& source) {
  for (const auto& [key, ignored] : value.items()) {
    if (key != "schema" && key != "inputs") {
      throw InputError(source, "only the fields schema and inputs", in_quotes(show(key)) + " as well");
    }
  }
  const Value* inputs = find(value, "inputs");
  if (!inputs) throw InputError(source, "only the fields schema and inputs", "no 'inputs'");
  if (!inputs->is_object()) throw InputError(source + ": inputs", "an object", show_value(*inputs));
  return *inputs;
}

/// The version that a file names; the first one where it names none.
std::string schema_of(const Value& value, const std::string& source) {
  const Value* schema = find(value, "schema");
  if (!schema || *schema == kWeights) return kWeights;
  if (*schema == kWeightsInt8) return kWeightsInt8;
  throw InputError(source + ": schema", in_quotes(kWeights) + " or " + in_quotes(kWeightsInt8),
                   show_value(*schema), "use the elastic_runtime that wrote the bundle");
}

WeightRecipe recipe_of(const Value& value, const std::string& source) {
  const std::vector<std::string_view> dtypes = stored_dtypes(schema_of(value, source));
  WeightRecipe recipe;
  recipe.source = source;
  for (const auto& [name, slice] : only_inputs(value, source).items()) {
    const std::string place = source + ": " + show(name);
    const Where where(place);
    recipe.inputs.push_back({name, {stored_slice(slice, where, dtypes)}});
  }
  // Read in this order, a shard is passed through once.
  std::stable_sort(
      recipe.inputs.begin(), recipe.inputs.end(), [](const WeightInput& a, const WeightInput& b) {
        return std::tie(a.parts[0].file, a.parts[0].offset) < std::tie(b.parts[0].file, b.parts[0].offset);
      });
  return recipe;
}

void check_extent(const StoredSlice& item, const std::filesystem::path& path, const std::string& where) {
  std::error_code error;
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path, error));
  if (error) {
    throw InputError(where, "the file " + path_text(path), error.message(), "name the folder of the weights");
  }
  const std::int64_t end = item.offset + item.parent_nbytes();
  if (end > size) {
    throw InputError(where, path_text(path) + " with at least " + std::to_string(end) + " bytes",
                     std::to_string(size) + " bytes", "copy that file again");
  }
}

}  // namespace

std::int64_t StoredSlice::nbytes() const { return bytes_of(shape, dtype); }

std::int64_t StoredSlice::parent_nbytes() const { return bytes_of(parent_shape, dtype); }

std::vector<std::int64_t> WeightInput::shape() const {
  std::vector<std::int64_t> whole = parts.at(0).shape;
  for (std::size_t i = 1; i < parts.size(); ++i)
    whole.at(axis) = plus(whole.at(axis), parts[i].shape.at(axis));
  return whole;
}

std::int64_t WeightInput::nbytes() const {
  std::int64_t sum = 0;
  for (const StoredSlice& part : parts) sum = plus(sum, part.nbytes());
  return sum;
}

std::int64_t WeightRecipe::nbytes() const {
  std::int64_t sum = 0;
  for (const WeightInput& item : inputs) sum = plus(sum, item.nbytes());
  return sum;
}

std::int64_t itemsize(const std::string& dtype) {
  return dtype == "fp32" ? 4 : dtype == "bf16" || dtype == "fp16" ? 2 : dtype == "int8" ? 1 : 0;
}

WeightRecipe read_recipe(const std::filesystem::path& path) {
  return advised("copy the bundle again, or export it again",
                 [&] { return recipe_of(read_json(path), path_text(path)); });
}

WeightRecipe parse_recipe(const std::string& data, const std::string& source) {
  return recipe_of(parse_json(data, source), source);
}

WeightFiles::WeightFiles(WeightRecipe recipe, const std::filesystem::path& directory,
                         const std::optional<std::filesystem::path>& external)
    : recipe_(std::move(recipe)) {
  const auto locate =
      [&](const std::string& file) {  // only what is outside of the budget's folder is the parent's
        return external && file.rfind("../", 0) == 0 ? *external / path_of(file.substr(file.rfind('/') + 1))
                                                     : directory / path_of(file);
      };
  for (const WeightInput& item : recipe_.inputs) {
    check_parts(item);
    for (const StoredSlice& part : item.parts) {
      check_extent(part, locate(part.file), recipe_.source + ": " + item.name);
    }
  }
  for (const WeightInput& item : recipe_.inputs) {
    for (const StoredSlice& part : item.parts) {
      auto& file = files_[part.file];
      if (!file) file = std::make_shared<const MappedFile>(locate(part.file));
      if (plus(part.offset, part.parent_nbytes()) > static_cast<std::int64_t>(file->size())) {
        throw InputError(part.file, "the size it had a moment ago", "a smaller one", "copy that file again");
      }
    }
  }
}

Read WeightFiles::Source::read() const {
  return [file = file, offset = offset](std::uint64_t at, std::byte* into, std::size_t count) {
    file->read(offset + at, into, count);
  };
}

std::vector<WeightFiles::Source> WeightFiles::sources(const WeightInput& input) const {
  std::vector<Source> result;
  Window window{input.shape(), input.axis, 0};
  for (const StoredSlice& part : input.parts) {
    const auto size = static_cast<std::uint64_t>(itemsize(part.dtype));
    result.push_back({files_.at(part.file), static_cast<std::uint64_t>(part.offset),
                      strided_blocks(part.parent_shape, part.runs, size, window)});
    window.first += part.shape[input.axis];
  }
  return result;
}

Weight WeightFiles::load(const WeightInput& input, const std::function<void(std::size_t)>& on_bytes) const {
  const std::vector<Source> parts = sources(input);
  const auto size = static_cast<std::size_t>(input.nbytes());
  if (on_bytes) on_bytes(0);  // a view reads nothing yet
  if (parts.size() == 1 && parts[0].blocks.size() == 1 && parts[0].blocks[0].contiguous()) {
    return {&input, parts[0].data() + parts[0].blocks[0].source, size, parts[0].file};
  }
  const std::shared_ptr<std::byte[]> copy = fresh_memory(size);
  for (const Source& part : parts) {
    read_blocks(part.read(), copy.get(), part.blocks, on_bytes);
  }
  return {&input, copy.get(), size, copy};
}

}  // namespace elastic
