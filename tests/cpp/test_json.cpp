#include <fstream>
#include <limits>

#include "check.h"
#include "unicode.h"

using namespace elastic;
using namespace elastic_test;

namespace {

std::string found(const std::string& data) { return THROWN(InputError, parse_json(data, "x")).found; }

}  // namespace

TEST(json_keeps_values) {
  const Value value = parse_json(R"({"b": [1, -2.5, "\u00e9\ud83d\ude00", true, null], "a": {}})", "x");
  CHECK_EQ(value.dump(), R"({"a":{},"b":[1,-2.5,"é😀",true,null]})");
  CHECK_EQ(integer(items(at(value, "b"))[0]), 1);
}

TEST(json_refuses_what_parsers_forgive) {
  CHECK_EQ(found(R"({"a": 1, "b": 2, "a": 3})"), "the key 'a' twice");
  CHECK_EQ(found(R"({"a": 18446744073709551615})"), "the integer 18446744073709551615");
  CHECK_EQ(found(R"({"a": 123456789012345678901234567890})"), "the integer 123456789012345678901234…");
  CHECK_EQ(found(R"({"a": 1e999})"), "the number 1e999");
  CHECK_EQ(found("{\"a\": \"\xff\"}"), "byte 0xff at offset 7");
  CHECK_EQ(found("{\"a\": \"\\ud800\"}"), "a lone surrogate (\\ud800 to \\udfff)");
  CHECK_EQ(found("[1]"), "[1]");
  CHECK_EQ(found(std::string("{}\0{}", 5)), "a zero byte at line 1 column 3");
  CHECK_EQ(found("\xEF\xBB\xBF{}"), "a byte order mark at line 1 column 1");
  CHECK_EQ(found("{\"a\":\n tru}").substr(0, 25), "a syntax error at line 2 ");
  CHECK_EQ(found("{\"a\": " + std::string(300, '[') + std::string(300, ']') + "}"),
           "values nested too deeply");
  for (const char* bad : {"", "{", "{\"a\": 01}", "{\"a\": .5}", "{} {}", "{\"a\": NaN}", "{'a': 1}",
                          "{\"a\": 1,}", "// no\n{}", "{\"a\": \"\t\"}"}) {
    CHECK_EQ(THROWN(InputError, parse_json(bad, "x")).expected, "valid JSON");
  }
}

TEST(json_of_others_holds_numbers_of_any_size) {
  const double most = std::numeric_limits<double>::max();
  const Value value = parse_json(
      R"({"a": 1000000000000000019884624838656, "b": 18446744073709551615, "c": 7, "d": 1.5, "e": [1e999, -1e999],
      "f": [Infinity, -Infinity, NaN], "g": "Infinity \" 1e999", "h": [1e3, -2]})",
      "x", Numbers::kAny);
  CHECK(at(value, "a") == 1e30);
  CHECK(at(value, "b") == 18446744073709551616.0);
  CHECK_EQ(integer(at(value, "c")), 7);
  CHECK(at(value, "d") == 1.5);
  CHECK(at(value, "e") == Value({most, -most}));
  CHECK(at(value, "f") == Value({most, -most, most}));
  CHECK_EQ(text(at(value, "g")), "Infinity \" 1e999");
  CHECK(at(value, "h") == Value({1000.0, -2}));
}

TEST(json_files_are_bounded) {
  const std::string folder = scratch("json");
  std::ofstream(folder + "/long.json") << "{\"a\": \"" << std::string(100, 'x') << "\"}";
  CHECK_EQ(THROWN(InputError, read_json(folder + "/long.json", 50)).expected, "at most 50 bytes of JSON");
  CHECK_EQ(read_json(folder + "/long.json", 109).size(), 1u);
  CHECK_EQ(THROWN(InputError, read_json(folder)).found, "a folder");
  CHECK_EQ(THROWN(InputError, read_json(folder + "/none.json")).found, "no such file");
}

TEST(json_utf8_is_checked_as_unicode_says) {
  for (const char* good :
       {"", "a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"}) {
    CHECK_EQ(invalid_utf8(good), std::string_view::npos);
  }
  for (const char* bad : {"\x80", "\xC0\x80", "\xC3", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                          "\xF5", "\xE2\x82", "\xC3("}) {
    CHECK_EQ(invalid_utf8(bad), 0u);
    CHECK_EQ(invalid_utf8(std::string("ab") + bad), 2u);
  }
}

TEST(json_shown_is_short_and_ascii) {
  CHECK_EQ(show("a\nb\\é"), "a\\nb\\\\\\xe9");
  CHECK_EQ(show(std::string(80, 'x')), std::string(57, 'x') + "...");
  CHECK_EQ(in_quotes("it's\n\\ é"), "'it\\'s\\n\\\\ é'");
  const Value value = parse_json(R"({"b": [1, -2.5, "é", true, null]})", "x");
  CHECK_EQ(show_value(at(value, "b")), R"([1,-2.5,"\\u00e9",true,null])");
  CHECK_EQ(show_value(at(value, "b")[2]), "\\xe9");
}
