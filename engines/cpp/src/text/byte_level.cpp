#include "text/byte_level.h"

#include <algorithm>
#include <utility>

#include "elastic_runtime/error.h"
#include "files.h"
#include "text/byte_letters.h"
#include "text/utf8_stream.h"
#include "unicode.h"

namespace elastic {
namespace {

constexpr char kTodo[] = "pass token ids instead of text";
// What ByteLevel splits by unless use_regex is false: GPT-2's.
constexpr char kBytePattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

[[noreturn]] void refuse(const std::string& where, const std::string& expected, const Value& found) {
  throw InputError(where, expected, show_value(found), kTodo);
}

/// The member of an object, null where there is none.
const Value& member(const Value& value, const char* key) {
  static const Value kNull;
  const Value* found = find(value, key);
  return found ? *found : kNull;
}

bool is_type(const Value& value, const char* type) { return member(value, "type") == type; }

/// The parts of a sequence, or the one thing that stands in its place; none for null.
std::vector<const Value*> sequence_of(const Value& value, const char* list) {
  if (value.is_null()) return {};
  if (!is_type(value, "Sequence")) return {&value};
  std::vector<const Value*> parts;
  for (const Value& part : member(value, list)) parts.push_back(&part);
  return parts;
}

class ByteLevelStream : public TextStream {
 public:
  explicit ByteLevelStream(const ByteLevelTokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(std::int64_t id) override { return text_.push(tokenizer_.bytes_of(id)); }
  std::string finish() override { return text_.finish(); }

 private:
  const ByteLevelTokenizer& tokenizer_;
  Utf8Stream text_;
};

Value tokenizer_json(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer.json";
  std::error_code none;
  if (std::filesystem::is_regular_file(path, none)) return others_json(path);
  throw InputError(path_text(path), "the bundle's tokenizer", "no such file", kTodo);
}

/// How texts were cut to a length and filled up for their maker's batches is left out, as in Python.
const Value& checked_model(const Value& file, const std::string& where) {
  const Value& normalizer = member(file, "normalizer");
  if (!normalizer.is_null()) refuse(where + ": normalizer", "none", normalizer);
  const Value& decoder = member(file, "decoder");
  if (!is_type(decoder, "ByteLevel")) refuse(where + ": decoder", "ByteLevel", decoder);
  return member(file, "model");
}

}  // namespace

ByteLevelTokenizer::ByteLevelTokenizer(const std::filesystem::path& folder)
    : ByteLevelTokenizer(tokenizer_json(folder), path_text(folder / "tokenizer.json")) {
  read_companions(folder);
  index_tokens();
}

ByteLevelTokenizer::ByteLevelTokenizer(const Value& file, const std::string& where)
    : model_(checked_model(file, where), where + ": model") {
  read_splits(file, where + ": pre_tokenizer");
  read_added(file, where + ": added_tokens");
  read_frame(file, where + ": post_processor");
  index_tokens();
}

void ByteLevelTokenizer::read_splits(const Value& file, const std::string& where) {
  const Value& whole = member(file, "pre_tokenizer");
  const std::vector<const Value*> parts = sequence_of(whole, "pretokenizers");
  if (parts.empty() || !is_type(*parts.back(), "ByteLevel")) refuse(where, "ByteLevel at its end", whole);
  std::vector<std::string> patterns;
  for (const Value* part : parts) {
    const bool is_last = part == parts.back();
    if (is_last ? member(*part, "add_prefix_space") == true : !is_type(*part, "Split"))
      refuse(where, "Split by a pattern, then ByteLevel without a space before", *part);
    if (is_last) {
      if (member(*part, "use_regex") != false) patterns.push_back(kBytePattern);
      continue;
    }
    const Value& pattern = member(member(*part, "pattern"), "Regex");
    if (!pattern.is_string() || member(*part, "behavior") != "Isolated" || member(*part, "invert") == true)
      refuse(where, "Split by a Regex whose matches are kept apart (Isolated)", *part);
    patterns.push_back(pattern.get<std::string>());
  }
  if (!model_.has_merges()) return;  // bytes stay bytes however they are cut
  for (const std::string& pattern : patterns) splits_.emplace_back(pattern, where);
}

void ByteLevelTokenizer::read_added(const Value& file, const std::string& where) {
  for (const Value& token : member(file, "added_tokens")) {
    const Value& id = member(token, "id");
    const AddedToken added = added_token(token);
    if (added.content.empty()) refuse(where, "tokens with content", token);
    if (add(added, where) != id)
      refuse(where + ": " + in_quotes(show(added.content)), "the next free id, or that of the vocabulary",
             id);
  }
}

/// Tokens that a text begins and ends with. ByteLevel there moves offsets only.
void ByteLevelTokenizer::read_frame(const Value& file, const std::string& where) {
  bool framed = false;
  for (const Value* part : sequence_of(member(file, "post_processor"), "processors")) {
    if (is_type(*part, "ByteLevel")) continue;
    if (framed || !is_type(*part, "TemplateProcessing")) refuse(where, "one TemplateProcessing", *part);
    framed = true;
    int texts = 0;
    for (const Value& item : member(*part, "single")) {
      if (find(item, "Sequence")) {
        ++texts;
        continue;
      }
      const Value* name = find(member(item, "SpecialToken"), "id");
      const Value* special =
          name && name->is_string() ? find(member(*part, "special_tokens"), *if_text(*name)) : nullptr;
      const Value& ids = special ? member(*special, "ids") : Value(nullptr);
      if (!ids.is_array()) refuse(where, "special tokens with their ids", item);
      for (const Value& id : ids) {
        if (!if_integer(id) || *if_integer(id) < 0) refuse(where, "special tokens with their ids", item);
        (texts == 0 ? before_ : after_).push_back(*if_integer(id));
      }
    }
    if (texts != 1) refuse(where, "the text once in a template", *part);
  }
}

void ByteLevelTokenizer::read_companions(const std::filesystem::path& folder) {
  const std::string where = path_text(folder / "tokenizer_config.json");
  for (const AddedToken& token : companion_tokens(folder)) {
    const bool is_new = !added_ids_.count(token.content) && !model_.id_of(token.content);
    if (is_new && !token.numbered)
      throw InputError(where, "tokens of tokenizer.json", in_quotes(show(token.content)) + " as well", kTodo);
    add(token, where);
  }
  const Value config = others_json(folder / "tokenizer_config.json");
  const char* corrupting = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
  const bool cleans =
      member(config, "clean_up_tokenization_spaces") == true && member(config, corrupting) == true;
  if (cleans) throw InputError(where + ": " + corrupting, "false", "true", kTodo);
  if (member(config, "split_special_tokens") == true)
    throw InputError(where + ": split_special_tokens", "false", "true", kTodo);
}

/// Numbers are given as the library gives them: that of the vocabulary, else the next one.
std::int64_t ByteLevelTokenizer::add(const AddedToken& token, const std::string& where) {
  const char* flag = token.single_word ? "single_word"
                     : token.lstrip    ? "lstrip"
                     : token.rstrip    ? "rstrip"
                                       : nullptr;
  if (flag) {
    throw InputError(where + ": " + in_quotes(show(token.content)),
                     "a token that takes no spaces and any neighbour", std::string("one with ") + flag,
                     kTodo);
  }
  const auto known = added_ids_.find(token.content);
  const auto size = static_cast<std::int64_t>(model_.vocabulary().size());
  const std::int64_t id = known != added_ids_.end()
                              ? known->second
                              : model_.id_of(token.content).value_or(std::max(last_added_ + 1, size));
  last_added_ = std::max(last_added_, id);
  added_ids_[token.content] = id;
  const bool was_special = added_.count(id) && added_[id].special;  // which it stays
  added_[id] = token;
  added_[id].special = token.special || was_special;
  return id;
}

void ByteLevelTokenizer::index_tokens() {
  first_ = second_ = {};
  bytes_.clear();
  for (const auto& [token, id] : model_.vocabulary()) bytes_[id] = bytes_of_letters(token).value_or(token);
  for (const auto& [id, token] : added_) {
    (token.normalized ? second_ : first_).add(token.content, id);
    // An added token is decoded like any other: its characters may stand for bytes.
    bytes_[id] = token.special ? std::string() : bytes_of_letters(token.content).value_or(token.content);
  }
}

std::vector<std::int64_t> ByteLevelTokenizer::encode(std::string_view text, bool special) const {
  const std::size_t bad = invalid_utf8(text);
  if (bad != std::string_view::npos)
    throw InputError("prompt", "valid UTF-8", "an invalid byte at " + std::to_string(bad),
                     "give the text in UTF-8");
  std::vector<std::int64_t> ids;
  if (special) ids = before_;
  const auto token = [&](std::int64_t id) { ids.push_back(id); };
  first_.split(
      text,
      [&](std::string_view part) {
        second_.split(part, [&](std::string_view rest) { encode_piece(rest, 0, ids); }, token);
      },
      token);
  if (special) ids.insert(ids.end(), after_.begin(), after_.end());
  return ids;
}

void ByteLevelTokenizer::encode_piece(std::string_view text, std::size_t split,
                                      std::vector<std::int64_t>& ids) const {
  if (split == splits_.size()) return model_.encode(text, ids);
  splits_[split].split(text, [&](std::string_view piece) { encode_piece(piece, split + 1, ids); });
}

std::unique_ptr<TextStream> ByteLevelTokenizer::stream() const {
  return std::make_unique<ByteLevelStream>(*this);
}

std::string_view ByteLevelTokenizer::bytes_of(std::int64_t id) const {
  const auto found = bytes_.find(id);
  return found == bytes_.end() ? std::string_view() : std::string_view(found->second);
}

}  // namespace elastic
