// Which ids end a text. Same rules as Tokenizer.stop_ids in Python.
#include <algorithm>
#include <optional>

#include "elastic_runtime/error.h"
#include "elastic_runtime/tokenizer.h"
#include "json.h"

namespace elastic {
namespace {

std::optional<Value> optional_json(const std::filesystem::path& path) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return std::nullopt;
  return read_json(path, kJsonLimit, Numbers::kAny);
}

/// A special token stands as text or as an object with `content`; null where it does neither.
const std::string* content_of(const Value* token) {
  if (token && token->is_object()) token = find(*token, "content");
  return token ? if_text(*token) : nullptr;
}

/// The id of a token in tokenizer.json.
std::optional<std::int64_t> id_of(const Value& tokenizer, const std::string& token) {
  const Value* added = find(tokenizer, "added_tokens");
  const Array* list = added ? if_array(*added) : nullptr;
  for (const Value& entry : list ? *list : Array{}) {
    const std::string* content = content_of(&entry);
    const Value* id = find(entry, "id");
    if (content && *content == token && id && if_integer(*id)) return *if_integer(*id);
  }
  const Value* model = find(tokenizer, "model");
  const Value* vocabulary = model ? find(*model, "vocab") : nullptr;
  const Value* id = vocabulary ? find(*vocabulary, token) : nullptr;
  return id && if_integer(*id) ? std::optional(*if_integer(*id)) : std::nullopt;
}

std::vector<std::int64_t> ids_of(const Value& eos) {
  std::vector<std::int64_t> ids;
  const Array one = {eos};
  const Array* list = if_array(eos);
  for (const Value& item : list ? *list : one) {
    const std::int64_t* id = if_integer(item);
    if (!id) throw InputError("generation_config.json: eos_token_id", "an id or a list of ids", show_value(eos));
    ids.push_back(*id);
  }
  return ids;
}

std::vector<std::int64_t> named(const std::filesystem::path& folder) {
  const auto generation = optional_json(folder / "generation_config.json");
  const Value* eos = generation ? find(*generation, "eos_token_id") : nullptr;
  if (eos && !eos->is_null()) return ids_of(*eos);
  const auto config = optional_json(folder / "tokenizer_config.json");
  const std::string* token = config ? content_of(find(*config, "eos_token")) : nullptr;
  if (token && token->empty()) token = nullptr;
  const auto older = token ? std::nullopt : optional_json(folder / "special_tokens_map.json");
  if (older) token = content_of(find(*older, "eos_token"));
  const auto tokenizer = token ? optional_json(folder / "tokenizer.json") : std::nullopt;
  const auto id = tokenizer ? id_of(*tokenizer, *token) : std::nullopt;
  return id ? std::vector<std::int64_t>{*id} : std::vector<std::int64_t>{};
}

}  // namespace

std::vector<std::int64_t> eos_ids(const std::filesystem::path& folder, std::int64_t vocab) {
  std::vector<std::int64_t> ids = named(folder);
  ids.erase(std::remove_if(ids.begin(), ids.end(), [&](std::int64_t id) { return id < 0 || id >= vocab; }),
            ids.end());
  return ids;
}

}  // namespace elastic
