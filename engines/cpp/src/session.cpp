#include "elastic_runtime/session.h"

#include <algorithm>
#include <cstring>

#include "elastic_runtime/error.h"

namespace elastic {
namespace {

/// Throws about a snapshot that differs in that.
void check_same(const std::string& what, const std::string& mine, const std::string& its) {
  if (mine == its) return;
  throw InputError("snapshot's " + what, mine.empty() ? "none" : mine, its.empty() ? "none" : its,
                   "restore it where it was taken, or prefill again");
}

}  // namespace

std::int64_t Snapshot::bytes() const {
  return states_->bytes() + static_cast<std::int64_t>(logits_.size() * sizeof(float));
}

Session::Session(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {
  if (!backend_) throw InputError("session", "a backend", "none", "give it what open_backend returns");
  reset(1);
}

void Session::reset(std::int64_t batch) {
  const std::int64_t most = shape().max_batch;
  if (batch < 1 || batch > most)
    throw InputError("batch", "1 to " + std::to_string(most), std::to_string(batch));
  ++moves_;
  whole_ = false;
  backend_->reset(batch);
  const auto rows = static_cast<std::size_t>(batch);
  positions_.assign(rows, 0);
  pending_.assign(rows, std::nullopt);
  logits_.assign(rows * static_cast<std::size_t>(shape().vocab), 0.0f);
  call_logits_.resize(logits_.size());
  whole_ = true;
}

void Session::check_whole() const {
  if (whole_) return;
  throw InputError("session", "no call under way, and none that was left in the middle", "one",
                   "reset it and feed its tokens again, or restore a snapshot");
}

const float* Session::feed(const Rows& rows, const std::vector<bool>& go_on) {
  const Rows ids = planned(rows, go_on);
  std::vector<std::size_t> fed(ids.size(), 0);
  const auto is_done = [&] {
    for (std::size_t row = 0; row < ids.size(); ++row) {
      if (fed[row] < ids[row].size()) return false;
    }
    return true;
  };
  while (!is_done()) call(ids, fed);
  return logits_.data();
}

Snapshot Session::snapshot(Place place) const {
  check_whole();
  Snapshot made;
  made.origin_ = backend_->origin();
  made.context_ = shape().max_context;
  made.positions_ = positions_;
  made.pending_ = pending_;
  made.logits_ = logits_;
  made.states_ = backend_->save(*std::max_element(positions_.begin(), positions_.end()), place);
  return made;
}

void Session::restore(const Snapshot& snapshot) {
  const Origin mine = backend_->origin();
  check_same("bundle", mine.bundle, snapshot.origin_.bundle);
  check_same("budget", mine.budget, snapshot.origin_.budget);
  check_same("backend", mine.backend, snapshot.origin_.backend);
  check_same("context", std::to_string(shape().max_context), std::to_string(snapshot.context_));
  check_same("batch", std::to_string(positions_.size()), std::to_string(snapshot.positions_.size()));
  // A reset to another batch that found no room has left states of neither.
  if (!whole_) backend_->reset(static_cast<std::int64_t>(positions_.size()));
  try {
    backend_->load(*snapshot.states_);
  } catch (const InputError&) {
    throw;
  } catch (...) {
    reset(static_cast<std::int64_t>(positions_.size()));
    throw;
  }
  ++moves_;
  positions_ = snapshot.positions_;
  pending_ = snapshot.pending_;
  logits_ = snapshot.logits_;
  whole_ = true;
}

void Session::set_pending(std::size_t row, std::optional<std::int64_t> id) {
  if (row >= pending_.size())
    throw InputError("row", "0 to " + std::to_string(pending_.size() - 1), std::to_string(row),
                     "name a row of the session");
  if (id) check_ids({*id}, row);
  pending_[row] = id;
}

/// What each row is fed, its pending token first. Everything is checked here, before anything is fed.
Session::Rows Session::planned(const Rows& rows, const std::vector<bool>& go_on) const {
  check_whole();
  if (rows.size() != positions_.size()) {
    throw InputError("prompt", "ids for " + std::to_string(positions_.size()) + " rows",
                     std::to_string(rows.size()) + " rows");
  }
  for (std::size_t row = 0; row < rows.size(); ++row) check_ids(rows[row], row);
  Rows ids = rows;
  bool any = false;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    const bool goes_on = row < go_on.size() && go_on[row];
    if (goes_on && !pending_[row] && rows[row].empty())
      throw InputError("row " + std::to_string(row), "a pending token", "none",
                       "set one with set_pending, or leave the row out");
    if (pending_[row] && (goes_on || !rows[row].empty())) ids[row].insert(ids[row].begin(), *pending_[row]);
    any = any || !ids[row].empty();
    check_room(row, ids[row].size());
  }
  if (!any) throw InputError("prompt", "at least one token", "none");
  return ids;
}

void Session::check_ids(const std::vector<std::int64_t>& ids, std::size_t row) const {
  for (const std::int64_t id : ids) {
    if (id >= 0 && id < shape().vocab) continue;
    throw InputError(positions_.size() == 1 ? "token ids" : "token ids of row " + std::to_string(row),
                     "0 to " + std::to_string(shape().vocab - 1), std::to_string(id));
  }
}

void Session::check_room(std::size_t row, std::size_t count) const {
  const std::int64_t end = positions_[row] + static_cast<std::int64_t>(count);
  if (count == 0 || end <= shape().max_context) return;
  throw InputError(positions_[row] == 0 && !pending_[row] ? "prompt" : "sequence",
                   "at most " + std::to_string(shape().max_context) + " tokens, the context",
                   std::to_string(end), "shorten it, or open the bundle with a larger context");
}

/// T of the next call: no row that can still grow may be padded past the end of its context.
std::int64_t Session::next_tokens(const Rows& rows, const std::vector<std::size_t>& fed) const {
  std::int64_t tokens = 0, room = shape().max_context;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    tokens = std::max(tokens, static_cast<std::int64_t>(rows[row].size() - fed[row]));
    const std::int64_t left = shape().max_context - positions_[row];
    if (left > 0) room = std::min(room, left);
  }
  return backend_->call_size(tokens, room);
}

void Session::call(const Rows& rows, std::vector<std::size_t>& fed) {
  if (before_call_) before_call_();
  ++moves_;
  const std::size_t batch = rows.size();
  const std::int64_t tokens = next_tokens(rows, fed);
  ids_.assign(batch * static_cast<std::size_t>(tokens), 0);
  lengths_.assign(batch, 0);
  call_positions_.assign(batch, 0);
  for (std::size_t row = 0; row < batch; ++row) {
    const auto left = static_cast<std::int64_t>(rows[row].size() - fed[row]);
    lengths_[row] = std::min(left, tokens);
    // A full row is fed nothing more: its last cache rows may be overwritten, past the end must not be
    // written.
    call_positions_[row] = std::min(positions_[row], shape().max_context - tokens);
    std::copy_n(rows[row].begin() + static_cast<std::ptrdiff_t>(fed[row]), lengths_[row],
                ids_.begin() + static_cast<std::ptrdiff_t>(row) * tokens);
  }
  whole_ = false;
  backend_->run(
      {static_cast<std::int64_t>(batch), tokens, ids_.data(), call_positions_.data(), lengths_.data()},
      call_logits_.data());
  const auto vocab = static_cast<std::size_t>(shape().vocab);
  for (std::size_t row = 0; row < batch; ++row) {
    if (lengths_[row] == 0) continue;
    std::memcpy(logits_.data() + row * vocab, call_logits_.data() + row * vocab, vocab * sizeof(float));
    positions_[row] += lengths_[row];
    pending_[row].reset();  // it was the first of them
    fed[row] += static_cast<std::size_t>(lengths_[row]);
  }
  whole_ = true;
}

}  // namespace elastic
