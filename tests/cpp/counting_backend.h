// A model that can be predicted: its state is the sum of all tokens of a row, its logits peak at (sum +
// tokens) % V. It fails the test when a call breaks a rule of the interface.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "elastic_runtime/session.h"

namespace elastic_test {

struct Record {
  std::vector<std::int64_t> tokens;  ///< T of every call
};

class CountingBackend : public elastic::Backend {
 public:
  CountingBackend(elastic::SessionShape shape, std::shared_ptr<Record> record)
      : shape_(shape), record_(std::move(record)) {}

  const elastic::SessionShape& shape() const override { return shape_; }
  std::int64_t memory() const override { return 0; }
  elastic::Origin origin() const override { return {"bundle", "budget", "counting"}; }

  std::unique_ptr<elastic::SavedStates> save(std::int64_t rows, elastic::Place) const override {
    auto saved = std::make_unique<Saved>();
    saved->sums = sums_, saved->counts = counts_, saved->rows = rows;
    return saved;
  }

  void load(const elastic::SavedStates& states) override {
    const auto& saved = dynamic_cast<const Saved&>(states);
    sums_ = saved.sums, counts_ = saved.counts;
  }

  void reset(std::int64_t batch) override {
    sums_.assign(static_cast<std::size_t>(batch), 0);
    counts_ = sums_;
  }

  void run(const elastic::Call& call, float* logits) override {
    CHECK_EQ(call.batch, static_cast<std::int64_t>(sums_.size()));
    CHECK(call.tokens >= 1 && call.tokens <= shape_.max_tokens);
    record_->tokens.push_back(call.tokens);
    for (std::int64_t row = 0; row < call.batch; ++row) run_row(call, row, logits + row * shape_.vocab);
  }

 private:
  struct Saved : elastic::SavedStates {
    std::int64_t bytes() const override { return 8 * rows; }
    std::vector<std::int64_t> sums, counts;
    std::int64_t rows = 0;
  };

  void run_row(const elastic::Call& call, std::int64_t row, float* logits) {
    const auto index = static_cast<std::size_t>(row);
    CHECK(call.length[row] >= 0 && call.length[row] <= call.tokens);
    CHECK(call.position[row] >= 0 && call.position[row] + call.tokens <= shape_.max_context);
    if (call.length[row] > 0) CHECK_EQ(call.position[row], counts_[index]);
    for (std::int64_t i = 0; i < call.length[row]; ++i) sums_[index] += call.ids[row * call.tokens + i];
    counts_[index] += call.length[row];
    for (std::int64_t id = 0; id < shape_.vocab; ++id) logits[id] = -1;
    if (call.length[row] > 0) logits[(sums_[index] + counts_[index]) % shape_.vocab] = 1;
  }

  elastic::SessionShape shape_;
  std::shared_ptr<Record> record_;
  std::vector<std::int64_t> sums_, counts_;
};

}  // namespace elastic_test
