// Runs the tests whose names start with the argument; all of them without one.

#include "check.h"

namespace elastic_test {
namespace {

int failures = 0;

}  // namespace

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

void fail(const char* file, int line, const std::string& what) {
  ++failures;
  std::cerr << file << ":" << line << ": " << what << "\n";
}

}  // namespace elastic_test

int main(int count, char** arguments) {
  const char* prefix = count > 1 ? arguments[1] : "";
  int ran = 0;
  for (const auto& test : elastic_test::tests()) {
    if (test.name.rfind(prefix, 0) != 0) continue;
    ++ran;
    const int before = elastic_test::failures;
    try {
      test.run();
    } catch (const std::exception& error) {
      elastic_test::fail(test.name.c_str(), 0, std::string("unexpected error: ") + error.what());
    } catch (const std::string& reason) {
      elastic_test::fail(test.name.c_str(), 0, reason);
    }
    std::cout << (elastic_test::failures == before ? "passed " : "FAILED ") << test.name << "\n";
  }
  if (ran == 0) std::cerr << "no test of that name\n";
  return ran == 0 || elastic_test::failures > 0 ? 1 : 0;
}
