#include "elastic_runtime/generate.h"

#include <algorithm>

#include "elastic_runtime/error.h"

namespace elastic {
namespace {

/// One row in progress.
struct Row {
  Row(const GenerateOptions& options, std::size_t index)
      : sampler({options.sampling.temperature, options.sampling.top_k, options.sampling.top_p,
                 options.sampling.seed + index}),
        stream(options.stop_texts) {}

  Sampler sampler;
  TextStream stream;
  Generated result;
  bool done = false;
};

void check(const GenerateOptions& options, const Session& session, const ByteTokenizer* tokenizer) {
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

/// Whether the row ends with this token, and why.
bool ends(const Row& row, std::int64_t id, const GenerateOptions& options, std::int64_t position,
          std::int64_t context, Stop& stop) {
  if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) {
    stop = Stop::kToken;
  } else if (row.stream.stopped()) {
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
  Generation(Session& session, const GenerateOptions& options, const ByteTokenizer* tokenizer,
             const OnToken& on_token, std::size_t count)
      : session_(session), options_(options), tokenizer_(tokenizer), on_token_(on_token) {
    for (std::size_t i = 0; i < count; ++i) rows_.emplace_back(options, i);
  }

  std::vector<Generated> run(std::vector<std::vector<std::int64_t>> next) {
    const auto vocab = static_cast<std::size_t>(session_.shape().vocab);
    for (std::size_t active = rows_.size(); active > 0;) {
      const float* logits = session_.feed(next);
      for (std::size_t i = 0; i < rows_.size(); ++i) {
        next[i].clear();
        if (rows_[i].done) continue;
        if (!take(i, logits + i * vocab)) return results();
        if (rows_[i].done) {
          --active;
        } else {
          next[i] = {rows_[i].result.ids.back()};
        }
      }
    }
    return results();
  }

 private:
  /// One token of a row; false when the caller wants no more.
  bool take(std::size_t index, const float* logits) {
    Row& row = rows_[index];
    const SessionShape& shape = session_.shape();
    const std::int64_t id = row.sampler.sample(logits, static_cast<std::size_t>(shape.vocab));
    row.result.ids.push_back(id);
    std::string text = tokenizer_ ? row.stream.push(tokenizer_->decode(id)) : std::string();
    row.done = ends(row, id, options_, session_.positions()[index], shape.max_context, row.result.stop);
    if (row.done) text += row.stream.finish();
    row.result.text += text;
    if (!on_token_ || on_token_(index, id, text)) return true;
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
  const ByteTokenizer* tokenizer_;
  const OnToken& on_token_;
  std::vector<Row> rows_;
};

}  // namespace

std::vector<Generated> generate(Session& session, const std::vector<std::vector<std::int64_t>>& prompts,
                                const GenerateOptions& options, const ByteTokenizer* tokenizer,
                                const OnToken& on_token) {
  check(options, session, tokenizer);
  return Generation(session, options, tokenizer, on_token, prompts.size()).run(prompts);
}

}  // namespace elastic
