#include "elastic_runtime/session.h"

#include <algorithm>
#include <cstring>

#include "elastic_runtime/error.h"

namespace elastic {

Session::Session(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) { reset(1); }

void Session::reset(std::int64_t batch) {
  const std::int64_t most = shape().max_batch;
  if (batch < 1 || batch > most)
    throw InputError("batch", "1 to " + std::to_string(most), std::to_string(batch));
  backend_->reset(batch);
  const auto rows = static_cast<std::size_t>(batch);
  positions_.assign(rows, 0);
  logits_.assign(rows * static_cast<std::size_t>(shape().vocab), 0.0f);
  call_logits_.resize(logits_.size());
}

const float* Session::feed(const std::vector<std::vector<std::int64_t>>& rows) {
  check(rows);
  std::vector<std::size_t> fed(rows.size(), 0);
  const auto is_done = [&] {
    for (std::size_t row = 0; row < rows.size(); ++row) {
      if (fed[row] < rows[row].size()) return false;
    }
    return true;
  };
  while (!is_done()) call(rows, fed);
  return logits_.data();
}

void Session::check(const std::vector<std::vector<std::int64_t>>& rows) const {
  if (rows.size() != positions_.size()) {
    throw InputError("batch", std::to_string(positions_.size()) + " rows", std::to_string(rows.size()));
  }
  bool any = false;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    any = any || !rows[row].empty();
    const std::int64_t room = shape().max_context - positions_[row];
    if (static_cast<std::int64_t>(rows[row].size()) > room) {
      throw InputError("row " + std::to_string(row),
                       "at most " + std::to_string(room) + " tokens more in a context of " +
                           std::to_string(shape().max_context),
                       std::to_string(rows[row].size()), "shorten the prompt or open a larger context");
    }
    for (const std::int64_t id : rows[row]) {
      if (id >= 0 && id < shape().vocab) continue;
      throw InputError("row " + std::to_string(row),
                       "token ids from 0 to " + std::to_string(shape().vocab - 1), std::to_string(id));
    }
  }
  if (!any) throw InputError("prompt", "at least one token", "none");
}

/// T of the next call: no row that can still grow may be padded past the end of its context.
std::int64_t Session::next_tokens(const std::vector<std::vector<std::int64_t>>& rows,
                                  const std::vector<std::size_t>& fed) const {
  std::int64_t tokens = 0, room = shape().max_tokens;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    tokens = std::max(tokens, static_cast<std::int64_t>(rows[row].size() - fed[row]));
    const std::int64_t left = shape().max_context - positions_[row];
    if (left > 0) room = std::min(room, left);
  }
  return std::min(tokens, room);
}

void Session::call(const std::vector<std::vector<std::int64_t>>& rows, std::vector<std::size_t>& fed) {
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
  backend_->run(
      {static_cast<std::int64_t>(batch), tokens, ids_.data(), call_positions_.data(), lengths_.data()},
      call_logits_.data());
  const auto vocab = static_cast<std::size_t>(shape().vocab);
  for (std::size_t row = 0; row < batch; ++row) {
    if (lengths_[row] == 0) continue;
    std::memcpy(logits_.data() + row * vocab, call_logits_.data() + row * vocab, vocab * sizeof(float));
    positions_[row] += lengths_[row];
    fed[row] += static_cast<std::size_t>(lengths_[row]);
  }
}

}  // namespace elastic
