// Runs the tests whose names start with the argument; all of them without one.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "check.h"

namespace elastic_test {
namespace {

int failures = 0;

} // namespace

std::vector<Test> &tests() {
  static std::vector<Test> all;
  return all;
}

void fail(const char *file, int line, const std::string &what) {
  ++failures;
  std::cerr << file << ":" << line << ": " << what << "\n";
}

std::string golden_text(const std::string &name) {
  std::ifstream file(std::string(ELASTIC_GOLDEN_DIR) + "/" + name,
                     std::ios::binary);
  if (!file)
    throw std::runtime_error("no golden file " + name);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

elastic::Value golden(const std::string &name) {
  return elastic::parse_json(golden_text(name), name);
}

std::string scratch(const std::string &name) {
  const std::filesystem::path folder =
      std::filesystem::path(ELASTIC_SCRATCH_DIR) / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder.generic_string();
}

const elastic::Value &at(const elastic::Value &value, const std::string &key) {
  const elastic::Value *found = value.find(key);
  if (!found)
    throw std::runtime_error("no member " + key);
  return *found;
}

std::string text(const elastic::Value &value) {
  const auto *found = value.get<std::string>();
  if (!found)
    throw std::runtime_error("no text");
  return *found;
}

std::int64_t integer(const elastic::Value &value) {
  const auto *found = value.get<std::int64_t>();
  if (!found)
    throw std::runtime_error("no integer");
  return *found;
}

const elastic::Array &items(const elastic::Value &value) {
  const auto *found = value.get<elastic::Array>();
  if (!found)
    throw std::runtime_error("no array");
  return *found;
}

} // namespace elastic_test

int main(int count, char **arguments) {
  const char *prefix = count > 1 ? arguments[1] : "";
  int ran = 0;
  for (const auto &test : elastic_test::tests()) {
    if (test.name.rfind(prefix, 0) != 0)
      continue;
    ++ran;
    const int before = elastic_test::failures;
    try {
      test.run();
    } catch (const std::exception &error) {
      elastic_test::fail(test.name.c_str(), 0,
                         std::string("unexpected error: ") + error.what());
    } catch (const std::string &reason) {
      elastic_test::fail(test.name.c_str(), 0, reason);
    }
    std::cout << (elastic_test::failures == before ? "passed " : "FAILED ")
              << test.name << "\n";
  }
  if (ran == 0)
    std::cerr << "no test of that name\n";
  return ran == 0 || elastic_test::failures > 0 ? 1 : 0;
}
