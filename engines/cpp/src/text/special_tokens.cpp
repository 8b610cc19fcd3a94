#include "text/special_tokens.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace elastic {
namespace {

constexpr const char* kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};
constexpr const char* kLists[] = {"extra_special_tokens", "additional_special_tokens"};

bool flag(const Value& token, const char* name, bool otherwise) {
  const Value* found = find(token, name);
  return found && found->is_boolean() ? found->get<bool>() : otherwise;
}

bool has_content(const Value& token) {
  const std::string* content = content_of(&token);
  return content && !content->empty();
}

bool is_named_token(const std::string& key, const Value& value) {
  const bool ends = key.size() > 6 && key.compare(key.size() - 6, 6, "_token") == 0;
  return ends && value.is_string() &&
         std::find(std::begin(kNames), std::end(kNames), key) == std::end(kNames);
}

/// Special tokens that have names: the usual ones, then a model's own, whose order is not kept here.
std::vector<AddedToken> named_tokens(const Value& config) {
  std::map<std::string, AddedToken> own;
  std::vector<AddedToken> result;
  for (const char* name : kNames) {
    const Value* token = find(config, name);
    if (token && has_content(*token)) result.push_back(added_token(*token));
  }
  for (const auto& [name, token] : config.items()) {
    if (is_named_token(name, token) && has_content(token)) own[name] = added_token(token, false);
  }
  const Value* extra = find(config, kLists[0]);
  if (extra && extra->is_object()) {
    for (const auto& [name, token] : extra->items()) {
      if (has_content(token)) own[name] = added_token(token, false);
    }
  }
  for (const auto& [name, token] : own) result.push_back(token);
  return result;
}

/// Of `added_tokens_decoder`, which tells them by their ids.
std::vector<AddedToken> listed_tokens(const Value& decoder) {
  std::map<std::int64_t, AddedToken> by_id;
  for (const auto& [id, token] : decoder.items()) {
    const bool is_number =
        !id.empty() && id.size() < 10 && id.find_first_not_of("0123456789") == std::string::npos;
    if (has_content(token)) by_id[is_number ? std::stoll(id) : 0] = added_token(token);
  }
  std::vector<AddedToken> result;
  for (const auto& [id, token] : by_id) result.push_back(token);
  return result;
}

/// Of added_tokens.json, written before there was a decoder.
std::vector<AddedToken> legacy_tokens(const Value& ids, const std::vector<AddedToken>& special) {
  std::map<std::int64_t, AddedToken> by_id;
  for (const auto& [content, id] : ids.items()) {
    const std::string& name = content;
    const bool is_special =
        std::any_of(special.begin(), special.end(), [&](const AddedToken& t) { return t.content == name; });
    if (if_integer(id) && !content.empty()) by_id[*if_integer(id)] = {content, is_special, !is_special};
  }
  std::vector<AddedToken> result;
  for (const auto& [id, token] : by_id) result.push_back(token);
  return result;
}

}  // namespace

bool AddedToken::operator==(const AddedToken& other) const {
  const auto all = [](const AddedToken& t) {
    return std::tie(t.content, t.special, t.normalized, t.single_word, t.lstrip, t.rstrip);
  };
  return all(*this) == all(other);
}

const std::string* content_of(const Value* token) {
  if (token && token->is_object()) token = find(*token, "content");
  return token ? if_text(*token) : nullptr;
}

Value others_json(const std::filesystem::path& path) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return Object();
  return read_json(path, kJsonLimit, Numbers::kAny);
}

AddedToken added_token(const Value& token, bool numbered) {
  AddedToken result;
  if (const std::string* content = content_of(&token)) result.content = *content;
  result.special = flag(token, "special", token.is_string());
  result.normalized = flag(token, "normalized", !result.special);
  result.single_word = flag(token, "single_word", false);
  result.lstrip = flag(token, "lstrip", false);
  result.rstrip = flag(token, "rstrip", false);
  result.numbered = numbered;
  return result;
}

std::vector<AddedToken> companion_tokens(const std::filesystem::path& folder) {
  Value config = others_json(folder / "tokenizer_config.json");
  const Value* decoder = find(config, "added_tokens_decoder");
  std::vector<AddedToken> listed;
  if (decoder && decoder->is_object()) {
    listed = listed_tokens(*decoder);
  } else {
    config.update(others_json(folder / "special_tokens_map.json"));
    listed = legacy_tokens(others_json(folder / "added_tokens.json"), named_tokens(config));
  }
  std::set<std::string> known;
  for (const AddedToken& token : listed) known.insert(token.content);
  const auto add = [&](const AddedToken& token) {
    if (!known.count(token.content))
      listed.push_back({token.content, true, false, false, false, false, token.numbered});
  };
  for (const AddedToken& token : named_tokens(config)) add(token);
  for (const char* name : kLists) {
    const Value* list = find(config, name);
    for (const Value& token : list && list->is_array() ? *list : Value(Array())) {
      if (has_content(token)) add(added_token(token));
    }
  }
  return listed;
}

}  // namespace elastic
