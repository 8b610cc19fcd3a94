// What tests and the fuzzer share: golden files and parsed values.
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
  const elastic::Value* found = value.find(key);
  if (!found) throw std::runtime_error("no member " + key);
  return *found;
}

std::string text(const elastic::Value& value) {
  const auto* found = value.get<std::string>();
  if (!found) throw std::runtime_error("no text");
  return *found;
}

std::int64_t integer(const elastic::Value& value) {
  const auto* found = value.get<std::int64_t>();
  if (!found) throw std::runtime_error("no integer");
  return *found;
}

const elastic::Array& items(const elastic::Value& value) {
  const auto* found = value.get<elastic::Array>();
  if (!found) throw std::runtime_error("no array");
  return *found;
}

}  // namespace elastic_test
