// Byte-pair encoding over bytes: the `model` of a tokenizer.json of type BPE.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "format/json.h"

namespace elastic {

class BytePairs {
 public:
  /// Throws InputError about `where`: another model, no letter for a byte, merges of or into tokens that are
  /// not in the vocabulary, two tokens of one id, or a setting that would have to be ignored.
  BytePairs(const Value& model, const std::string& where);

  /// Appends the ids of a piece of text: pairs are merged by ascending rank, of equal ones the first, exactly
  /// as in the `tokenizers` library.
  void encode(std::string_view piece, std::vector<std::int64_t>& ids) const;

  /// The id of a token as the vocabulary writes it.
  std::optional<std::int64_t> id_of(std::string_view token) const;

  const std::unordered_map<std::string, std::int64_t>& vocabulary() const { return ids_; }
  bool has_merges() const { return !merges_.empty(); }

 private:
  struct Merge {
    std::uint32_t rank;
    std::int32_t id;
  };

  void read_vocabulary(const Value& model, const std::string& where);
  void read_merges(const Value& model, const std::string& where);
  const Merge* merge_of(std::int32_t left, std::int32_t right) const;
  void merge(std::string_view piece, std::vector<std::int64_t>& ids) const;

  std::unordered_map<std::string, std::int64_t> ids_;  // by the token in letters
  std::array<std::int32_t, 256> bytes_{};
  std::unordered_map<std::uint64_t, Merge> merges_;  // by the ids of both parts
  bool whole_pieces_ = false;                        // a piece that is a token is not put together by merges
};

}  // namespace elastic
