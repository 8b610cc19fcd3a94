// The tokenizer of byte-level vocabularies: added tokens, a pattern or several, byte pairs.
#pragma once

#include <optional>
#include <unordered_map>

#include "elastic_runtime/tokenizer.h"
#include "text/added_tokens.h"
#include "text/byte_pairs.h"
#include "text/special_tokens.h"
#include "text/split_pattern.h"

namespace elastic {

class ByteLevelTokenizer : public Tokenizer {
 public:
  /// Throws as `read_tokenizer` does.
  explicit ByteLevelTokenizer(const std::filesystem::path& folder);

  /// The same of a parsed tokenizer.json alone; `where` names it in errors.
  ByteLevelTokenizer(const Value& file, const std::string& where);

  std::vector<std::int64_t> encode(std::string_view text, bool special) const override;
  std::unique_ptr<TextStream> stream() const override;

  /// The bytes that an id adds to a text; empty for special tokens and for ids that mean nothing.
  std::string_view bytes_of(std::int64_t id) const;

 private:
  void read_splits(const Value& file, const std::string& where);
  void read_added(const Value& file, const std::string& where);
  void read_frame(const Value& file, const std::string& where);
  void read_companions(const std::filesystem::path& folder);
  std::int64_t add(const AddedToken& token, const std::string& where);
  void index_tokens();
  void encode_piece(std::string_view text, std::size_t split, std::vector<std::int64_t>& ids) const;

  BytePairs model_;
  std::vector<SplitPattern> splits_;  // each cuts what the one before left
  std::unordered_map<std::int64_t, AddedToken> added_;
  std::unordered_map<std::string, std::int64_t> added_ids_;
  std::int64_t last_added_ = -1;
  TokenFinder first_,
      second_;  // tokens that are looked for in the text as it is, then those in the normalized one
  std::vector<std::int64_t> before_, after_;  // what the tokenizer puts around a text
  std::unordered_map<std::int64_t, std::string> bytes_;
};

}  // namespace elastic
