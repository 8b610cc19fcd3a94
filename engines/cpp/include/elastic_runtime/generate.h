// Generating text: greedy or sampled, with stop tokens, stop strings and a callback that streams.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "elastic_runtime/sampler.h"
#include "elastic_runtime/session.h"
#include "elastic_runtime/tokenizer.h"

namespace elastic {

struct GenerateOptions {
  std::int64_t max_new = 256;           ///< tokens a row
  Sampling sampling;                    ///< row b draws with the seed `seed + b`
  std::vector<std::int64_t> stop_ids;   ///< given out without text
  std::vector<std::string> stop_texts;  ///< need a tokenizer
};

enum class Stop { kLength, kContext, kToken, kText, kCaller };

struct Generated {
  std::vector<std::int64_t> ids;  ///< a stop token is the last of them
  std::string text;               ///< up to the stop string, which is left out; empty without a tokenizer
  Stop stop = Stop::kLength;
};

/// Hears of every token: row, id, and the text that has become certain (whole UTF-8 sequences, no start of a
/// stop string). False ends the generation of all rows.
using OnToken = std::function<bool(std::size_t row, std::int64_t id, std::string_view text)>;

/// Continue every row of the session by its prompt and what the model makes of it. The last token of a row
/// was given out and not fed: it is pending (session.h), and the next prompt follows it. An empty prompt goes
/// on where the row was left.
/// @param tokenizer null where there is none: then only ids come out
/// Throws InputError as `Session::feed` does, for an empty prompt of an empty row, and for stop strings
/// without a tokenizer; nothing was fed then. Throws it too when `on_token` has moved the session: what would
/// follow is not of this generation.
std::vector<Generated> generate(Session& session, const std::vector<std::vector<std::int64_t>>& prompts,
                                const GenerateOptions& options, const Tokenizer* tokenizer = nullptr,
                                const OnToken& on_token = {});

/// Passes text on until a stop string appears in it; text that may become one is held back.
class StopText {
 public:
  /// Throws InputError: an empty stop string.
  explicit StopText(std::vector<std::string> stops = {});

  /// Takes text and gives what may be passed on. The stop string, and what follows it, is dropped.
  std::string push(std::string_view text);

  /// What was held back, at the end.
  std::string finish();

  /// Whether a stop string has been met; nothing comes after it.
  bool stopped() const { return stopped_; }

 private:
  std::size_t overlap() const;

  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace elastic
