// Text to token ids and back, by a bundle's own tokenizer or by one that the program brings.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace elastic {

/// What a growing sequence says. What was given out never changes, and all of it together is the whole text.
class TextStream {
 public:
  virtual ~TextStream() = default;

  /// The text that is certain after one more id, whole UTF-8 sequences; may be empty.
  virtual std::string push(std::int64_t id) = 0;

  /// What was held back, at the end; the stream is as new then.
  virtual std::string finish() = 0;
};

/// Derive from it to bring your own. Several threads may use one at a time; a stream belongs to one of them,
/// and must not outlive its tokenizer.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// The ids of UTF-8 text; special tokens in it become their own ids.
  /// @param special whether to add what the tokenizer begins or ends a text with
  /// Throws InputError: text that is no UTF-8.
  virtual std::vector<std::int64_t> encode(std::string_view text, bool special) const = 0;

  /// A decoder of one sequence, which leaves special tokens out, and ids that mean nothing.
  virtual std::unique_ptr<TextStream> stream() const = 0;

  /// The text of ids: all that a stream says of them. Bytes that are no UTF-8 become U+FFFD. Throws
  /// InputError: an id below 0 or beyond 32 bits.
  std::string decode(const std::vector<std::int64_t>& ids) const;
};

/// The tokenizer of a bundle: byte pairs over bytes (`tokenizer.json` of the `tokenizers` library, with the
/// tokens that tokenizer_config.json and its older companions add). Ids and texts are those of Python's
/// `Tokenizer`.
///
/// Throws InputError, naming the part: no such file, no JSON, or anything in it that this reader would have
/// to ignore (another model than BPE, a normalizer, tokens that take the spaces around them, a pattern whose
/// syntax PCRE2 reads in another way). Throws UnavailableError where the text must be split by a pattern, as
/// for every vocabulary with merges, and the library was built without PCRE2.
std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& folder);

/// Ids that end a text, of the files in `folder`: eos_token_id of generation_config.json, else the id of
/// eos_token in tokenizer_config.json, else in special_tokens_map.json. Ids that a model of `vocab` ids
/// cannot give are left out. Throws InputError about files that hold something else.
std::vector<std::int64_t> eos_ids(const std::filesystem::path& folder, std::int64_t vocab);

}  // namespace elastic
