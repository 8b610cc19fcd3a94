#include "elastic_runtime/generate.h"

#include <algorithm>

#include "elastic_runtime/error.h"

namespace elastic {
namespace {

/// One row in progress.
struct Row {
  Row(const GenerateOptions& options, const Tokenizer* tokenizer, std::size_t index)
      : sampler({options.sampling.temperature, options.sampling.top_k, options.sampling.top_p,
                 options.sampling.seed + index}),
        stream(tokenizer ? tokenizer->stream() : nullptr),
        stop(options.stop_texts) {}

  Sampler sampler;
  std::unique_ptr<TextStream> stream;
  StopText stop;
  Generated result;
  bool done = false;
};

/// A row without a token has no logits to go on from.
void check_prompts(const std::vector<std::vector<std::int64_t>>& prompts, const Session& session) {
  session.check_whole();
  const std::size_t rows = session.positions().size();
  if (prompts.size() != rows)
    throw InputError("prompt", "ids for " + std::to_string(rows) + " rows",
                     std::to_string(prompts.size()) + " rows");
  for (std::size_t i = 0; i < rows; ++i) {
    if (!prompts[i].empty() || session.positions()[i] > 0 || session.pending()[i]) continue;
    throw InputError(rows == 1 ? "prompt" : "prompt " + std::to_string(i), "at least one token", "none");
  }
}

void check(const GenerateOptions& options, const Session& session, const Tokenizer* tokenizer) {
  if (options.max_new < 1) throw InputError("max_new", "at least 1", std::to_string(options.max_new));
  if (!options.stop_texts.empty() && !tokenizer) {
    throw InputError("stop string", "a bundle with a tokenizer that this program reads", "none",
                     "stop at token ids");
  }
  for (const std::int64_t id : options.stop_ids) {
    if (id >= 0 && id < session.shape().vocab) continue;
    throw InputError("stop token", "an id from 0 to " + std::to_string(session.shape().vocab - 1),
                     std::to_string(id));
  }
}

bool is_stop_id(std::int64_t id, const GenerateOptions& options) {
  return std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end();
}

/// Whether the row ends with its last token, and why.
bool ends(const Row& row, const GenerateOptions& options, bool stops, std::int64_t position,
          std::int64_t context, Stop& stop) {
  if (stops) {
    stop = Stop::kToken;
  } else if (row.stop.stopped()) {
    stop = Stop::kText;
  } else if (static_cast<std::int64_t>(row.result.ids.size()) == options.max_new) {
    stop = Stop::kLength;
  } else if (position >= context) {
    stop = Stop::kContext;
  } else {
    return false;
  }
  return true;
}

/// Everything of one call of `generate`.
class Generation {
 public:
  Generation(Session& session, const GenerateOptions& options, const Tokenizer* tokenizer,
             const OnToken& on_token, std::size_t count)
      : session_(session), options_(options), on_token_(on_token) {
    for (std::size_t i = 0; i < count; ++i) rows_.emplace_back(options, tokenizer, i);
  }

  std::vector<Generated> run(const std::vector<std::vector<std::int64_t>>& prompts) {
    const auto vocab = static_cast<std::size_t>(session_.shape().vocab);
    std::vector<bool> active(rows_.size(), true);
    if (start(prompts)) session_.feed(prompts, pending());
    const std::vector<std::vector<std::int64_t>> nothing(rows_.size());
    for (std::size_t left = rows_.size();;) {
      for (std::size_t i = 0; i < rows_.size(); ++i) {
        if (!active[i]) continue;
        if (!take(i, session_.logits() + i * vocab)) return results();
        active[i] = !rows_[i].done;
        if (rows_[i].done && --left == 0) return results();
      }
      session_.feed(nothing, active);
    }
  }

 private:
  /// Whether anything is to be fed first: a row that stands where it was left has its logits already.
  bool start(const std::vector<std::vector<std::int64_t>>& prompts) const {
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      if (!prompts[i].empty() || session_.pending()[i]) return true;
    }
    return false;
  }

  /// The rows that have a pending token: it is fed alone where there is no prompt.
  std::vector<bool> pending() const {
    std::vector<bool> rows;
    for (const auto& id : session_.pending()) rows.push_back(id.has_value());
    return rows;
  }

  /// One token of a row; false when the caller wants no more.
  bool take(std::size_t index, const float* logits) {
    Row& row = rows_[index];
    const SessionShape& shape = session_.shape();
    const std::int64_t id = row.sampler.sample(logits, static_cast<std::size_t>(shape.vocab));
    row.result.ids.push_back(id);
    session_.set_pending(index, id);  // given out, and fed only when the row goes on, now or later
    std::string text;
    const bool stops = is_stop_id(id, options_);
    if (row.stream && !stops) text = row.stop.push(row.stream->push(id));
    row.done = ends(row, options_, stops, session_.positions()[index], shape.max_context, row.result.stop);
    if (row.done && row.stream) text += row.stop.push(row.stream->finish()) + row.stop.finish();
    row.result.text += text;
    if (!on_token_) return true;
    const std::uint64_t moves = session_.moves();
    const bool goes_on = on_token_(index, id, text);
    if (session_.moves() != moves) {
      throw InputError("generation", "the session as it left it",
                       "one that was fed, reset or restored since, or on which another generation began",
                       "finish one before the next, or open a session for each");
    }
    if (goes_on) return true;
    for (Row& other : rows_) {
      if (!other.done) other.result.stop = Stop::kCaller;
    }
    return false;
  }

  std::vector<Generated> results() {
    std::vector<Generated> results;
    for (Row& row : rows_) results.push_back(std::move(row.result));
    return results;
  }

  Session& session_;
  const GenerateOptions& options_;
  const OnToken& on_token_;
  std::vector<Row> rows_;
};

}  // namespace

std::vector<Generated> generate(Session& session, const std::vector<std::vector<std::int64_t>>& prompts,
                                const GenerateOptions& options, const Tokenizer* tokenizer,
                                const OnToken& on_token) {
  check(options, session, tokenizer);
  check_prompts(prompts, session);
  return Generation(session, options, tokenizer, on_token, prompts.size()).run(prompts);
}

}  // namespace elastic
