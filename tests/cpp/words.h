// A tokenizer that a program brings: every id is a word.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "elastic_runtime/tokenizer.h"

namespace elastic_test {

class Words : public elastic::Tokenizer {
 public:
  std::vector<std::int64_t> encode(std::string_view, bool) const override { return {}; }
  std::unique_ptr<elastic::TextStream> stream() const override { return std::make_unique<Stream>(); }

 private:
  struct Stream : elastic::TextStream {
    std::string push(std::int64_t id) override {
      return std::exchange(held_, "w" + std::to_string(id) + " ");
    }
    std::string finish() override { return std::exchange(held_, {}); }
    std::string held_;
  };
};

}  // namespace elastic_test
