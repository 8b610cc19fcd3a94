#include "elastic_runtime/tokenizer.h"

#include <algorithm>
#include <initializer_list>

#include "elastic_runtime/error.h"
#include "files.h"
#include "json.h"
#include "unicode.h"

namespace elastic {
namespace {

[[noreturn]] void refuse(const std::string& where, const std::string& found) {
  throw InputError(where, "a byte-level vocabulary without merges", found, "pass token ids instead of text");
}

/// The member at a path of keys; null where there is none.
const Value& member(const Value& value, std::initializer_list<const char*> keys) {
  static const Value kNull;
  const Value* at = &value;
  for (const char* key : keys) {
    at = find(*at, key);
    if (!at) return kNull;
  }
  return *at;
}

bool is_text(const Value& value, std::string_view wanted) {
  const std::string* text = if_text(value);
  return text && *text == wanted;
}

bool is_off(const Value& value) {
  const bool* truth = if_truth(value);
  return value.is_null() || (truth && !*truth);
}

/// UTF-8 of the letter that stands for a byte in a byte-level vocabulary (GPT-2's table): printable ones for
/// themselves.
std::string letter(int byte) {
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
  };
  int point = byte;
  if (!printable(byte)) {
    point = 0x100;
    for (int before = 0; before < byte; ++before) point += printable(before) ? 0 : 1;
  }
  if (point < 0x80) return std::string(1, static_cast<char>(point));
  return {static_cast<char>(0xC0 | point >> 6), static_cast<char>(0x80 | (point & 0x3F))};
}

void check_model(const Value& file, const std::string& where) {
  const Value& model = member(file, {"model"});
  if (!is_text(member(model, {"type"}), "BPE")) refuse(where + ": model.type", show_value(member(model, {"type"})));
  const Array* merges = if_array(member(model, {"merges"}));
  if (!merges || !merges->empty()) {
    refuse(where + ": model.merges", merges ? std::to_string(merges->size()) + " merges" : "none");
  }
  for (const char* name : {"byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "unk_token"}) {
    if (!is_off(member(model, {name}))) refuse(where + ": model." + name, show_value(member(model, {name})));
  }
  for (const char* name : {"normalizer", "post_processor", "truncation", "padding"}) {
    if (!member(file, {name}).is_null()) refuse(where + ": " + name, show_value(member(file, {name})));
  }
  const Value& split = member(file, {"pre_tokenizer"});
  if (!is_text(member(split, {"type"}), "ByteLevel") || !is_off(member(split, {"add_prefix_space"}))) {
    refuse(where + ": pre_tokenizer", show_value(split));
  }
}

std::int64_t id_of(const Value& value, const std::string& where) {
  const std::int64_t* id = if_integer(value);
  if (!id || *id < 0) throw InputError(where, "a token id", show_value(value));
  return *id;
}

}  // namespace

ByteTokenizer ByteTokenizer::read(const std::filesystem::path& path) {
  return parse(read_bytes(path, kJsonLimit, "a readable JSON file"), path_text(path));
}

ByteTokenizer ByteTokenizer::parse(const std::string& data, const std::string& where) {
  const Value file = parse_json(data, where);
  check_model(file, where);
  const Value& vocabulary = member(file, {"model", "vocab"});
  if (!vocabulary.is_object() || vocabulary.size() != 256)
    refuse(where + ": model.vocab", "other tokens");
  ByteTokenizer result;
  for (int byte = 0; byte < 256; ++byte) {
    const Value* id = find(vocabulary, letter(byte));
    if (!id) refuse(where + ": model.vocab", "no letter for byte " + std::to_string(byte));
    result.ids_[static_cast<std::size_t>(byte)] = id_of(*id, where + ": model.vocab");
    result.bytes_[result.ids_[static_cast<std::size_t>(byte)]] = std::string(1, static_cast<char>(byte));
  }
  const Array* added = if_array(member(file, {"added_tokens"}));
  for (const Value& token : added ? *added : Array{}) {
    const std::string* content = if_text(member(token, {"content"}));
    if (!content || content->empty())
      throw InputError(where + ": added_tokens", "tokens with content", show_value(token));
    for (const char* name : {"lstrip", "rstrip", "normalized", "single_word"}) {
      if (!is_off(member(token, {name}))) refuse(where + ": added_tokens", std::string("one with ") + name);
    }
    result.marks_.emplace_back(*content, id_of(member(token, {"id"}), where + ": added_tokens"));
  }
  std::stable_sort(result.marks_.begin(), result.marks_.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  return result;
}

std::vector<std::int64_t> ByteTokenizer::encode(std::string_view text) const {
  const std::size_t bad = invalid_utf8(text);
  if (bad != std::string_view::npos)
    throw InputError("prompt", "UTF-8 text", "another byte at offset " + std::to_string(bad));
  std::vector<std::int64_t> ids;
  for (std::size_t at = 0; at < text.size();) {
    const auto mark = std::find_if(marks_.begin(), marks_.end(), [&](const auto& m) {
      return text.compare(at, m.first.size(), m.first) == 0;
    });
    const bool found = mark != marks_.end();
    ids.push_back(found ? mark->second : ids_[static_cast<unsigned char>(text[at])]);
    at += found ? mark->first.size() : 1;
  }
  return ids;
}

std::string_view ByteTokenizer::decode(std::int64_t id) const {
  const auto found = bytes_.find(id);
  return found == bytes_.end() ? std::string_view() : std::string_view(found->second);
}

}  // namespace elastic
