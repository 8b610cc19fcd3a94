#include "elastic_runtime/tokenizer.h"

#include "elastic_runtime/error.h"
#include "text/byte_level.h"

namespace elastic {

std::string Tokenizer::decode(const std::vector<std::int64_t>& ids) const {
  const std::unique_ptr<TextStream> text = stream();
  std::string whole;
  for (const std::int64_t id : ids) {
    if (id < 0 || id >= std::int64_t{1} << 32)
      throw InputError("token ids", "0 or more, of 32 bits", std::to_string(id),
                       "give ids of this tokenizer");
    whole += text->push(id);
  }
  return whole + text->finish();
}

std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& folder) {
  return std::make_unique<ByteLevelTokenizer>(folder);
}

}  // namespace elastic
