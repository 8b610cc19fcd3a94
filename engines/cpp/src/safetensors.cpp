#include "elastic_runtime/safetensors.h"

#include <algorithm>
#include <fstream>
#include <tuple>

#include "elastic_runtime/error.h"
#include "elastic_runtime/json.h"
#include "files.h"

namespace elastic {
namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;  // bytes; the bound of the reference implementation
constexpr struct Dtype {
  const char *ours, *name;
  std::int64_t size;
} kDtypes[] = {
    {"bf16", "BF16", 2},        {"fp16", "F16", 2},         {"fp32", "F32", 4},  {"fp64", "F64", 8},
    {"fp8_e4m3", "F8_E4M3", 1}, {"fp8_e5m2", "F8_E5M2", 1}, {"bool", "BOOL", 1}, {"i8", "I8", 1},
    {"i16", "I16", 2},          {"i32", "I32", 4},          {"i64", "I64", 8},   {"u8", "U8", 1},
    {"u16", "U16", 2},          {"u32", "U32", 4},          {"u64", "U64", 8}};

std::vector<std::int64_t> counts(const std::string& subject, const Value& value) {
  const auto* items = value.get<Array>();
  std::vector<std::int64_t> result;
  for (const Value& item : items ? *items : Array{}) {
    const auto* number = item.get<std::int64_t>();
    if (number && *number >= 0) result.push_back(*number);
  }
  if (!items || result.size() != items->size())
    throw InputError(subject, "a list of integers ≥ 0", json_type(value));
  return result;
}

std::string list_text(const std::vector<std::int64_t>& items) {
  std::string text = "[";
  for (const std::int64_t item : items) text += (text.size() > 1 ? ", " : "") + std::to_string(item);
  return text + "]";
}

const Dtype& dtype_of(const std::string& subject, const Value& value) {
  const auto* name = value.get<std::string>();
  for (const Dtype& dtype : kDtypes) {
    if (name && *name == dtype.name) return dtype;
  }
  std::string known;
  for (const Dtype& dtype : kDtypes) known += (known.empty() ? "" : ", ") + std::string(dtype.name);
  throw InputError(subject + ", dtype", "one of " + known, json_type(value));
}

void check_keys(const std::string& subject, const Value& value) {
  const auto* members = value.get<Object>();
  if (members && members->size() == 3 && value.find("dtype") && value.find("shape") &&
      value.find("data_offsets"))
    return;
  std::string found = json_type(value);
  if (members) {
    std::vector<std::string> keys;
    for (const Member& member : *members) keys.push_back(member.key);
    std::sort(keys.begin(), keys.end());
    found = "the keys ";
    for (const std::string& key : keys) found += (&key == keys.data() ? "" : ", ") + key;
  }
  throw InputError(subject, "dtype, shape and data_offsets", found);
}

TensorEntry entry(const std::string& file, const Member& member, std::int64_t start) {
  const std::string subject = file + ", tensor " + repr(member.key);
  check_keys(subject, member.value);
  const Dtype& dtype = dtype_of(subject, *member.value.find("dtype"));
  const auto shape = counts(subject + ", shape", *member.value.find("shape"));
  const std::string place = subject + ", data_offsets";
  const auto offsets = counts(place, *member.value.find("data_offsets"));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    throw InputError(place, "[begin, end] with begin ≤ end", list_text(offsets));
  }
  const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  std::int64_t nbytes = empty ? 0 : dtype.size;
  for (const std::int64_t size : shape) nbytes = times(nbytes, size);
  if (offsets[1] - offsets[0] != nbytes || offsets[0] > kMost - start) {
    throw InputError(place, std::to_string(nbytes) + " bytes for " + dtype.name + " " + list_text(shape),
                     std::to_string(offsets[1] - offsets[0]));
  }
  return {member.key, dtype.ours, shape, start + offsets[0], nbytes};
}

void check_metadata(const std::string& file, const Value& metadata) {
  if (metadata.is_null()) return;  // optional in the reference implementation
  const auto* members = metadata.get<Object>();
  const auto is_text = [](const Member& member) { return member.value.get<std::string>() != nullptr; };
  if (members && std::all_of(members->begin(), members->end(), is_text)) return;
  throw InputError(file + ", __metadata__", "an object of texts", json_type(metadata));
}

/// The tensors fill the file from the header to its end, each byte once.
void check_contiguous(const std::string& file, const std::vector<TensorEntry>& entries, std::int64_t start,
                      std::int64_t size) {
  std::int64_t end = start;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const std::string subject = file + ", tensor " + repr(entries[i].name);
    const std::int64_t gap = entries[i].offset - end;
    if (i == 0 && gap != 0) {
      throw InputError(subject, "to lie right after the header",
                       std::to_string(gap) + " unused bytes before it");
    }
    if (gap != 0) {
      throw InputError(subject, "to lie right after " + repr(entries[i - 1].name),
                       gap > 0 ? std::to_string(gap) + " unused bytes between them"
                               : std::to_string(-gap) + " bytes shared by both");
    }
    end = plus(entries[i].offset, entries[i].nbytes);
  }
  if (end > size) {
    throw InputError(file + ", tensor " + repr(entries.back().name), "data up to byte " + std::to_string(end),
                     "a file of " + std::to_string(size) + " bytes, truncated");
  }
  if (end < size) {
    throw InputError(file, std::to_string(end) + " bytes",
                     std::to_string(size) + ": bytes that belong to no tensor");
  }
}

std::uint64_t header_length(std::string_view bytes, const std::string& file) {
  if (bytes.size() < 8) throw InputError(file, "a safetensors file", std::to_string(bytes.size()) + " bytes");
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes[i]);
  if (length > kMaxHeader) {
    throw InputError(file + ", header length", "at most " + std::to_string(kMaxHeader) + " bytes",
                     std::to_string(length));
  }
  return length;
}

}  // namespace

std::vector<TensorEntry> parse_safetensors_header(std::string_view bytes, std::uint64_t size,
                                                  const std::string& file) {
  const std::uint64_t length = header_length(bytes, file);
  if (bytes.size() - 8 < length) {
    throw InputError(file + ", header", std::to_string(length) + " bytes",
                     std::to_string(bytes.size() - 8) + ": the file is truncated");
  }
  const Value raw = parse_json(bytes.substr(8, length), file + ", header");
  const auto start = static_cast<std::int64_t>(8 + length);
  if (const Value* metadata = raw.find("__metadata__")) check_metadata(file, *metadata);
  std::vector<TensorEntry> entries;
  for (const Member& member : *raw.get<Object>()) {
    if (member.key != "__metadata__") entries.push_back(entry(file, member, start));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.offset, a.nbytes) < std::tie(b.offset, b.nbytes);
  });
  check_contiguous(file, entries, start, static_cast<std::int64_t>(size));
  return entries;
}

std::vector<TensorEntry> read_safetensors_header(const std::filesystem::path& path) {
  const std::string name = path_text(path);
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) {
    throw InputError(name, "a safetensors file",
                     std::filesystem::is_directory(path, none) ? "a folder" : "no such file");
  }
  const std::uint64_t size = std::filesystem::file_size(path, none);
  const std::string prefix = read_bytes(path, 7, "a readable safetensors file");
  const std::uint64_t length = header_length(prefix, name);
  return parse_safetensors_header(read_bytes(path, 8 + length - 1, "a readable safetensors file"), size,
                                  name);
}

std::int64_t itemsize(std::string_view dtype) {
  for (const Dtype& known : kDtypes) {
    if (dtype == known.ours) return known.size;
  }
  return 0;
}

}  // namespace elastic
