#include "text/added_tokens.h"

#include <algorithm>

namespace elastic {

void TokenFinder::add(const std::string& content, std::int64_t id) {
  auto& entries = by_first_byte_[static_cast<unsigned char>(content.at(0))];
  const auto place = std::find_if(entries.begin(), entries.end(),
                                  [&](const Entry& entry) { return entry.first.size() < content.size(); });
  entries.insert(place, {content, id});
}

const TokenFinder::Entry* TokenFinder::at(std::string_view rest) const {
  for (const Entry& entry : by_first_byte_[static_cast<unsigned char>(rest[0])]) {
    if (rest.compare(0, entry.first.size(), entry.first) == 0) return &entry;
  }
  return nullptr;
}

void TokenFinder::split(std::string_view text, const std::function<void(std::string_view)>& between,
                        const std::function<void(std::int64_t)>& token) const {
  std::size_t done = 0;
  for (std::size_t here = 0; here < text.size();) {
    const Entry* found = at(text.substr(here));
    if (!found) {
      ++here;
      continue;
    }
    if (here > done) between(text.substr(done, here - done));
    token(found->second);
    here += found->first.size();
    done = here;
  }
  if (done < text.size()) between(text.substr(done));
}

}  // namespace elastic
