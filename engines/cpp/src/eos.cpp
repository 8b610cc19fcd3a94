// Which ids end a text. Same rules as Tokenizer.stop_ids in Python.
#include <algorithm>
#include <optional>

#include "elastic_runtime/error.h"
#include "elastic_runtime/json.h"
#include "elastic_runtime/tokenizer.h"

namespace elastic {
namespace {

std::optional<Value> optional_json(const std::filesystem::path& path) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return std::nullopt;
  return read_json(path, kJsonLimit, Numbers::kAny);
}

/// A special token stands as text or as an object with `content`; null where it does neither.
const std::string* content_of(const Value* token) {
  if (token && token->get<Object>()) token = token->find("content");
  return token ? token->get<std::string>() : nullptr;
}

/// The id of a token in tokenizer.json.
std::optional<std::int64_t> id_of(const Value& tokenizer, const std::string& token) {
  const Value* added = tokenizer.find("added_tokens");
  const auto* list = added ? added->get<Array>() : nullptr;
  for (const Value& entry : list ? *list : Array{}) {
    const std::string* content = content_of(&entry);
    const Value* id = entry.find("id");
    if (content && *content == token && id && id->get<std::int64_t>()) return *id->get<std::int64_t>();
  }
  const Value* model = tokenizer.find("model");
  const Value* vocabulary = model ? model->find("vocab") : nullptr;
  const Value* id = vocabulary ? vocabulary->find(token) : nullptr;
  return id && id->get<std::int64_t>() ? std::optional(*id->get<std::int64_t>()) : std::nullopt;
}

std::vector<std::int64_t> ids_of(const Value& eos) {
  std::vector<std::int64_t> ids;
  const Array one = {eos};
  const auto* list = eos.get<Array>();
  for (const Value& item : list ? *list : one) {
    const auto* id = item.get<std::int64_t>();
    if (!id) throw InputError("generation_config.json: eos_token_id", "an id or a list of ids", show(eos));
    ids.push_back(*id);
  }
  return ids;
}

std::vector<std::int64_t> named(const std::filesystem::path& folder) {
  const auto generation = optional_json(folder / "generation_config.json");
  const Value* eos = generation ? generation->find("eos_token_id") : nullptr;
  if (eos && !eos->is_null()) return ids_of(*eos);
  const auto config = optional_json(folder / "tokenizer_config.json");
  const std::string* token = config ? content_of(config->find("eos_token")) : nullptr;
  if (token && token->empty()) token = nullptr;
  const auto older = token ? std::nullopt : optional_json(folder / "special_tokens_map.json");
  if (older) token = content_of(older->find("eos_token"));
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
