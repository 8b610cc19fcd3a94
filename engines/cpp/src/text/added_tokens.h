// Where added tokens stand in a text.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace elastic {

/// Finds tokens in a text: of those that begin at one place the longest, from left to right.
class TokenFinder {
 public:
  void add(const std::string& content, std::int64_t id);

  /// Calls `text` with what lies between the tokens and `token` with each of them, in order.
  void split(std::string_view text, const std::function<void(std::string_view)>& between,
             const std::function<void(std::int64_t)>& token) const;

 private:
  using Entry = std::pair<const std::string, std::int64_t>;
  const Entry* at(std::string_view rest) const;

  std::unordered_map<std::string, std::int64_t> ids_;
  std::array<std::set<std::size_t, std::greater<>>, 256> sizes_;  // of those with that first byte, in bytes
};

}  // namespace elastic
