#include "text/added_tokens.h"

namespace elastic {

void TokenFinder::add(const std::string& content, std::int64_t id) {
  sizes_[static_cast<unsigned char>(content.at(0))].insert(content.size());
  ids_.emplace(content, id);
}

const TokenFinder::Entry* TokenFinder::at(std::string_view rest) const {
  for (const std::size_t size : sizes_[static_cast<unsigned char>(rest[0])]) {
    if (size > rest.size()) continue;
    const auto found = ids_.find(std::string(rest.substr(0, size)));
    if (found != ids_.end()) return &*found;
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
