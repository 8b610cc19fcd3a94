// Running a sub-model: tokens in, logits out, states kept between the calls.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
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

/// What a backend runs: the digest of its bundle's manifest, the budget's name, the backend's kind.
struct Origin {
  std::string bundle, budget, backend;
};

/// Where a copy of states lies.
enum class Place { kDevice, kHost };

/// A copy of all states, of the kind of the backend that made it. Its memory goes with it.
class SavedStates {
 public:
  virtual ~SavedStates() = default;
  virtual std::int64_t bytes() const = 0;
};

/// Device code behind one interface: weights, states and the model's run. Sessions drive it.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual const SessionShape& shape() const = 0;

  /// T of the next call where a row has `wanted` tokens to feed and `most` fit behind every row, both at
  /// least 1. At most `most` and max_tokens; more than `wanted` is padding, where another T would cost more.
  virtual std::int64_t call_size(std::int64_t wanted, std::int64_t most) const {
    return std::min({wanted, most, shape().max_tokens});
  }

  /// All states zero, for `batch` rows.
  virtual void reset(std::int64_t batch) = 0;

  /// Run the model and carry the states over. `logits` [B, V] gets those of each row's last real token; rows
  /// of length 0 are unspecified. Throws BuildError when the device fails.
  virtual void run(const Call& call, float* logits) = 0;

  /// Bytes held on the device: weights, states, caches, scratch.
  virtual std::int64_t memory() const = 0;

  virtual Origin origin() const = 0;

  /// A copy of every state, of caches the first `rows` rows, beside the states or in main memory.
  virtual std::unique_ptr<SavedStates> save(std::int64_t rows, Place place) const = 0;

  /// Put the states back as they were, where as many sequences are under way; rows beyond those of the copy
  /// become zero. Throws InputError, and nothing has changed, about one that another kind of backend made, or
  /// one whose states lie in another way.
  virtual void load(const SavedStates& saved) = 0;
};

/// A session as it stood at one moment: what `Session::snapshot` gives and `Session::restore` takes, as often
/// as one likes. Copies share the states. For B rows of which the longest has P tokens it takes B * (state
/// bytes + P * KV bytes a token) of the backend's dtypes, and 4 * B * V.
class Snapshot {
 public:
  /// Bytes of states and logits.
  std::int64_t bytes() const;

  /// Tokens in each row's state.
  const std::vector<std::int64_t>& positions() const { return positions_; }

 private:
  friend class Session;
  Snapshot() = default;

  Origin origin_;
  std::int64_t context_ = 0;
  std::vector<std::int64_t> positions_;
  std::vector<std::optional<std::int64_t>> pending_;
  std::vector<float> logits_;
  std::shared_ptr<const SavedStates> states_;
};

/// Sequences in progress on one backend. Prefill and decode are the same call: `feed`.
///
/// A row may have a *pending* token: one that was given out as its next and not fed yet, as the last token of
/// every generation is. It belongs to the sequence, so whatever the row is fed next is fed after it.
///
/// A call that was left in the middle, by a device that failed, has moved the states by nobody knows how
/// much: the session is not `whole` then, and refuses to go on (InputError) until `reset` or `restore`.
class Session {
 public:
  using Rows = std::vector<std::vector<std::int64_t>>;

  /// Throws InputError: no backend.
  explicit Session(std::unique_ptr<Backend> backend);

  /// Start anew with `batch` empty sequences, nothing pending. Throws InputError: not 1 to max_batch.
  void reset(std::int64_t batch = 1);

  /// Append each row's tokens to its sequence, behind its pending one, in as many calls as max_tokens
  /// demands. Rows may be empty, not all: those keep their logits and their pending token, unless `go_on` has
  /// them (one truth a row; empty: none): then the pending token is fed alone. Returns `logits()`. Throws
  /// InputError: another number of rows than the session has, ids out of the vocabulary, more tokens than the
  /// context takes, a row in `go_on` that has nothing to be fed; nothing was fed then.
  const float* feed(const Rows& rows, const std::vector<bool>& go_on = {});

  /// Logits [B, V] after each row's last token; zero for a row that never got one. Changed by the next call.
  const float* logits() const { return logits_.data(); }

  /// Tokens in each row's state, a pending one not counted.
  const std::vector<std::int64_t>& positions() const { return positions_; }

  /// The token of each row that was given out and not fed yet.
  const std::vector<std::optional<std::int64_t>>& pending() const { return pending_; }

  /// Say which token comes first when the row is fed again; none: none does. Throws InputError about row or
  /// id.
  void set_pending(std::size_t row, std::optional<std::int64_t> id);

  /// The session as it stands, to come back to with `restore`. Throws BuildError where the device has no
  /// room.
  Snapshot snapshot(Place place = Place::kDevice) const;

  /// Stand again as at a snapshot, of this session or of one like it: what follows is, bit for bit, what
  /// would have followed then. Throws InputError about one of another bundle, budget, backend, context or
  /// batch, and nothing has changed; BuildError when the device fails, and the session begins anew.
  void restore(const Snapshot& snapshot);

  /// Whether no call was left in the middle: the states are those of what was fed.
  bool whole() const { return whole_; }

  /// Throws InputError where it is not whole.
  void check_whole() const;

  /// A number that changes whenever the states do.
  std::uint64_t moves() const { return moves_; }

  /// `hook` is called before every call of the model. What it throws ends `feed` there: tokens of earlier
  /// calls were fed, the others not.
  void before_call(std::function<void()> hook) { before_call_ = std::move(hook); }

  const SessionShape& shape() const { return backend_->shape(); }
  std::int64_t memory() const { return backend_->memory(); }

 private:
  void check_ids(const std::vector<std::int64_t>& ids, std::size_t row) const;
  void check_room(std::size_t row, std::size_t count) const;
  Rows planned(const Rows& rows, const std::vector<bool>& go_on) const;
  void call(const Rows& rows, std::vector<std::size_t>& fed);
  std::int64_t next_tokens(const Rows& rows, const std::vector<std::size_t>& fed) const;

  std::unique_ptr<Backend> backend_;
  std::function<void()> before_call_;
  std::vector<std::int64_t> positions_;
  std::vector<std::optional<std::int64_t>> pending_;
  std::vector<std::int64_t> ids_, call_positions_, lengths_;
  std::vector<float> logits_, call_logits_;
  std::uint64_t moves_ = 0;
  bool whole_ = false;
};

}  // namespace elastic
