// Text to token ids for byte-level vocabularies without merges, such as the demo model's. Others are refused
// with an error: pass token ids then.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace elastic {

class ByteTokenizer {
 public:
  /// Reads `tokenizer.json` strictly. Throws InputError: no such file, another model than BPE over bytes,
  /// merges, a normalizer or anything else that this class would have to ignore.
  static ByteTokenizer read(const std::filesystem::path& path);

  /// The same for its text; `where` names it in errors.
  static ByteTokenizer parse(const std::string& data, const std::string& where);

  /// The ids of UTF-8 text; marks such as `<|user|>` become their own token. Throws InputError: text that is
  /// no UTF-8.
  std::vector<std::int64_t> encode(std::string_view text) const;

  /// The bytes of a token; empty for marks and for ids without a meaning.
  std::string_view decode(std::int64_t id) const;

 private:
  std::vector<std::int64_t> ids_ = std::vector<std::int64_t>(256, -1);  // of each byte
  std::map<std::int64_t, std::string> bytes_;
  std::vector<std::pair<std::string, std::int64_t>> marks_;  // the longest first
};

/// Ids that end a text, of the files in `folder`: eos_token_id of generation_config.json, else the id of
/// eos_token in tokenizer_config.json, else in special_tokens_map.json. Ids that a model of `vocab` ids cannot give are left out. Throws
/// InputError about files that hold something else.
std::vector<std::int64_t> eos_ids(const std::filesystem::path& folder, std::int64_t vocab);

}  // namespace elastic
