// The smallest test frame that says what differed: TEST(name) { CHECK(...);
// CHECK_EQ(got, wanted); }
#pragma once

#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "elastic_runtime/error.h"
#include "format/json.h"

namespace elastic_test {

struct Test {
  std::string name;
  void (*run)();
};

std::vector<Test>& tests();
void fail(const char* file, int line, const std::string& what);

/// The object of a golden file that Python's tests check too.
elastic::Value golden(const std::string& name);
std::string golden_text(const std::string& name);

/// A tokenizer.json as the demo model has it, with two marks.
std::string tokenizer_text();

/// A new empty folder below the build folder.
std::string scratch(const std::string& name);

/// Members of a parsed object; a missing one fails the test by an exception.
const elastic::Value& at(const elastic::Value& value, const std::string& key);
std::string text(const elastic::Value& value);
std::int64_t integer(const elastic::Value& value);
const elastic::Array& items(const elastic::Value& value);

struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

template <typename A, typename B>
void check_equal(const A& got, const B& wanted, const char* what, const char* file, int line) {
  if (got == wanted) return;
  std::ostringstream text;
  text << what << "\n  got    " << got << "\n  wanted " << wanted;
  fail(file, line, text.str());
}

/// The error that `run` ends with; fails when there is none.
template <typename Kind, typename Run>
Kind thrown(Run&& run, const char* file, int line) {
  try {
    run();
  } catch (const Kind& error) {
    return error;
  }
  fail(file, line, "no error where one was expected");
  throw std::string("test cannot go on");
}

}  // namespace elastic_test

#define TEST(name)                                                        \
  static void name();                                                     \
  static const elastic_test::Registration name##_registered(#name, name); \
  static void name()
#define CHECK(condition) \
  if (!(condition)) elastic_test::fail(__FILE__, __LINE__, #condition)
#define CHECK_EQ(got, wanted) elastic_test::check_equal(got, wanted, #got, __FILE__, __LINE__)
#define THROWN(kind, expression) elastic_test::thrown<kind>([&] { (void)(expression); }, __FILE__, __LINE__)
