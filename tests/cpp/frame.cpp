// What tests and the fuzzer share: golden files and parsed values.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "check.h"

namespace elastic_test {

std::string golden_text(const std::string& name) {
  std::ifstream file(std::string(ELASTIC_GOLDEN_DIR) + "/" + name, std::ios::binary);
  if (!file) throw std::runtime_error("no golden file " + name);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

elastic::Value golden(const std::string& name) { return elastic::parse_json(golden_text(name), name); }

std::string scratch(const std::string& name) {
  const std::filesystem::path folder = std::filesystem::path(ELASTIC_SCRATCH_DIR) / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder.generic_string();
}

const elastic::Value& at(const elastic::Value& value, const std::string& key) {
  const elastic::Value* found = elastic::find(value, key);
  if (!found) throw std::runtime_error("no member " + key);
  return *found;
}

std::string text(const elastic::Value& value) {
  const std::string* found = elastic::if_text(value);
  if (!found) throw std::runtime_error("no text");
  return *found;
}

std::int64_t integer(const elastic::Value& value) {
  const std::int64_t* found = elastic::if_integer(value);
  if (!found) throw std::runtime_error("no integer");
  return *found;
}

const elastic::Array& items(const elastic::Value& value) {
  const elastic::Array* found = elastic::if_array(value);
  if (!found) throw std::runtime_error("no array");
  return *found;
}

std::string tokenizer_text() {
  std::string vocab;
  int other = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool plain = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    char letter[16];
    std::snprintf(letter, sizeof letter, "\\u%04x", static_cast<unsigned>(plain ? byte : other++));
    vocab += (byte ? ", \"" : "\"") + std::string(letter) + "\": " + std::to_string(byte);
  }
  return R"({"added_tokens": [{"id": 256, "content": "<|a|>", "special": true}, {"id": 257, "content": "<|a|>b", "normalized": false}],
    "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "post_processor": null, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "byte_fallback": false, "merges": [], "vocab": {)" +
         vocab + "}}}";
}

}  // namespace elastic_test
