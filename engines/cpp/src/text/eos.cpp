// Which ids end a text. Same rules as Tokenizer.stop_ids in Python.
#include <algorithm>
#include <optional>

#include "elastic_runtime/error.h"
#include "elastic_runtime/tokenizer.h"
#include "format/json.h"
#include "text/special_tokens.h"

namespace elastic {
namespace {

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
    if (!id)
      throw InputError("generation_config.json: eos_token_id", "an id or a list of ids", show_value(eos));
    ids.push_back(*id);
  }
  return ids;
}

std::vector<std::int64_t> named(const std::filesystem::path& folder) {
  const Value generation = others_json(folder / "generation_config.json");
  const Value* eos = find(generation, "eos_token_id");
  if (eos && !eos->is_null()) return ids_of(*eos);
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const Value config = others_json(folder / name);
    const std::string* token = content_of(find(config, "eos_token"));
    if (!token || token->empty()) continue;
    const auto id = id_of(others_json(folder / "tokenizer.json"), *token);
    return id ? std::vector<std::int64_t>{*id} : std::vector<std::int64_t>{};
  }
  return {};
}

}  // namespace

std::vector<std::int64_t> eos_ids(const std::filesystem::path& folder, std::int64_t vocab) {
  std::vector<std::int64_t> ids = named(folder);
  ids.erase(std::remove_if(ids.begin(), ids.end(), [&](std::int64_t id) { return id < 0 || id >= vocab; }),
            ids.end());
  return ids;
}

}  // namespace elastic
