// Running a sub-model: tokens in, logits out, states kept between the calls.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace elastic {

/// What a backend can take. Counts of tokens and rows.
struct SessionShape {
  std::int64_t vocab = 0, max_context = 0, max_tokens = 0, max_batch = 0;
};

/// One call of the model: B rows of T tokens, padded with any valid id. Arrays of the caller, row-major.
struct Call {
  std::int64_t batch = 0, tokens = 0;
  const std::int64_t* ids = nullptr;       ///< [B, T]
  const std::int64_t* position = nullptr;  ///< [B] tokens already in the state; position + T <= max_context
  const std::int64_t* length = nullptr;    ///< [B] real tokens of the row, 0..T
};

/// Device code behind one interface: weights, states and the model's run. Sessions drive it.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual const SessionShape& shape() const = 0;

  /// All states zero, for `batch` rows.
  virtual void reset(std::int64_t batch) = 0;

  /// Run the model and carry the states over. `logits` [B, V] gets those of each row's last real token; rows
  /// of length 0 are unspecified. Throws BuildError when the device fails.
  virtual void run(const Call& call, float* logits) = 0;

  /// Bytes held on the device: weights, states, caches, scratch.
  virtual std::int64_t memory() const = 0;
};

/// Sequences in progress on one backend. Prefill and decode are the same call: `feed`.
class Session {
 public:
  explicit Session(std::unique_ptr<Backend> backend);

  /// Start anew with `batch` empty sequences. Throws InputError: not 1 to max_batch.
  void reset(std::int64_t batch = 1);

  /// Append each row's tokens to its sequence, in as many calls as max_tokens demands; rows may be empty, not
  /// all. Returns logits [B, V] after each row's last token; those of a row that never got one are zero. The
  /// pointer holds until the next call. Throws InputError: another number of rows than the session has, ids
  /// out of the vocabulary, more tokens than the context takes; nothing was fed then.
  const float* feed(const std::vector<std::vector<std::int64_t>>& rows);

  /// Tokens in each row's state.
  const std::vector<std::int64_t>& positions() const { return positions_; }
  const SessionShape& shape() const { return backend_->shape(); }
  std::int64_t memory() const { return backend_->memory(); }

 private:
  void check(const std::vector<std::vector<std::int64_t>>& rows) const;
  void call(const std::vector<std::vector<std::int64_t>>& rows, std::vector<std::size_t>& fed);
  std::int64_t next_tokens(const std::vector<std::vector<std::int64_t>>& rows,
                           const std::vector<std::size_t>& fed) const;

  std::unique_ptr<Backend> backend_;
  std::vector<std::int64_t> positions_;
  std::vector<std::int64_t> ids_, call_positions_, lengths_;
  std::vector<float> logits_, call_logits_;
};

}  // namespace elastic
