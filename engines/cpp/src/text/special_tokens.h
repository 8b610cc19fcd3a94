// Tokens beside the vocabulary: those of tokenizer.json, and what tokenizer_config.json and its older
// companions add. Same rules as elastic_runtime/text/special_tokens.py.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "format/json.h"

namespace elastic {

/// A token that is found in a text before anything else is done to it, and the flags that say how.
struct AddedToken {
  std::string content;
  bool special = false, normalized = false, single_word = false, lstrip = false, rstrip = false;
  bool numbered = true;  ///< whether its file says where it stands among those that are new

  /// Whether it is found in the same way.
  bool operator==(const AddedToken& other) const;
};

/// A special token stands as text or as an object with `content`; null where it does neither.
const std::string* content_of(const Value* token);

/// The object of a file of Hugging Face's tools, an empty one where there is no such file. Throws InputError.
Value others_json(const std::filesystem::path& path);

/// A token that stands as text (special then) or as an object with flags. `numbered` as given.
AddedToken added_token(const Value& token, bool numbered = true);

/// What the files beside tokenizer.json add, in the order in which it is added. Throws InputError: a file
/// that is no JSON.
std::vector<AddedToken> companion_tokens(const std::filesystem::path& folder);

}  // namespace elastic
