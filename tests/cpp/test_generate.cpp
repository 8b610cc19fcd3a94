#include <fstream>

#include "check.h"
#include "counting_backend.h"
#include "elastic_runtime/generate.h"

using namespace elastic;
using namespace elastic_test;

namespace {

using Ids = std::vector<std::int64_t>;
namespace fs = std::filesystem;

Session session_of(SessionShape shape = {300, 40, 4, 3}) {
  return Session(std::make_unique<CountingBackend>(shape, std::make_shared<Record>()));
}

/// What the counting model says greedily: each token is (sum of all before + their number) % V.
Ids expected(Ids prompt, std::int64_t vocab, int count) {
  Ids made;
  std::int64_t sum = 0, tokens = 0;
  for (const std::int64_t id : prompt) sum += id, ++tokens;
  for (int i = 0; i < count; ++i) {
    made.push_back((sum + tokens) % vocab);
    sum += made.back(), ++tokens;
  }
  return made;
}

/// The tokenizer of the demo model with one thing replaced.
ByteTokenizer tokenizer(const std::string& from = "", const std::string& to = "") {
  std::string file = tokenizer_text();
  if (!from.empty()) file.replace(file.find(from), from.size(), to);
  const std::string path = scratch("tokenizer") + "/tokenizer.json";
  std::ofstream(path, std::ios::binary) << file;
  return ByteTokenizer::read(path);
}

}  // namespace

TEST(generate_greedy_whatever_the_cut) {
  for (const std::int64_t max_tokens : {1, 3, 40}) {
    Session session = session_of({300, 40, max_tokens, 1});
    GenerateOptions options;
    options.max_new = 10;
    const auto result = generate(session, {{7, 8, 9}}, options);
    CHECK(result[0].ids == expected({7, 8, 9}, 300, 10));
    CHECK(result[0].stop == Stop::kLength);
  }
}

TEST(generate_rows_end_on_their_own) {
  Session session = session_of();
  session.reset(2);
  GenerateOptions options;
  options.max_new = 6;
  options.stop_ids = {expected({5, 5}, 300, 3)[2]};
  const auto result = generate(session, {{5, 5}, {1}}, options);
  CHECK(result[0].ids == expected({5, 5}, 300, 3));
  CHECK(result[0].stop == Stop::kToken);
  CHECK(result[1].ids == expected({1}, 300, 6));
}

TEST(generate_ends_with_the_context) {
  Session session = session_of({300, 8, 4, 1});
  const auto result = generate(session, {{1, 2, 3, 4, 5}}, {});
  CHECK_EQ(result[0].ids.size(), 4u);  // three that were fed again, and one more
  CHECK(result[0].stop == Stop::kContext);
}

TEST(generate_stops_for_the_caller) {
  Session session = session_of();
  int heard = 0;
  const auto result = generate(session, {{1}}, {}, nullptr,
                               [&](std::size_t, std::int64_t, std::string_view) { return ++heard < 3; });
  CHECK_EQ(result[0].ids.size(), 3u);
  CHECK(result[0].stop == Stop::kCaller);
}

TEST(generate_seed_decides) {
  GenerateOptions options;
  options.sampling = {1.0, 0, 1.0, 11};
  options.max_new = 20;
  Session a = session_of(), b = session_of(), c = session_of();
  const Ids first = generate(a, {{1}}, options)[0].ids, again = generate(b, {{1}}, options)[0].ids;
  options.sampling.seed = 12;
  CHECK(first == again);
  CHECK(first != generate(c, {{1}}, options)[0].ids);
}

TEST(generate_refuses) {
  Session session = session_of();
  GenerateOptions options;
  options.stop_texts = {"x"};
  CHECK_EQ(THROWN(InputError, generate(session, {{1}}, options)).todo, "stop at token ids");
  options.stop_texts.clear();
  options.stop_ids = {300};
  CHECK_EQ(THROWN(InputError, generate(session, {{1}}, options)).expected, "an id from 0 to 299");
  options.stop_ids.clear();
  options.max_new = 0;
  CHECK_EQ(THROWN(InputError, generate(session, {{1}}, options)).subject, "max_new");
  CHECK_EQ(THROWN(InputError, TextStream({""})).subject, "stop string");
}

TEST(generate_text_streams_whole_characters) {
  TextStream stream;
  CHECK_EQ(stream.push("a\xC3"), "a");
  CHECK_EQ(stream.push("\xA9"), "\xC3\xA9");
  CHECK_EQ(stream.push("\xF0\x9F"), "");
  CHECK_EQ(stream.push("\x98\x80!"), "\xF0\x9F\x98\x80!");
  CHECK_EQ(stream.push("\xFFz"), "\xEF\xBF\xBDz");
  CHECK_EQ(stream.push("\xE2\x82("),
           "\xEF\xBF\xBD(");  // one sign for one broken sequence, as Python's "replace"
  CHECK_EQ(stream.push("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK_EQ(stream.push("\xE2\x82"), "");
  CHECK_EQ(stream.finish(), "\xEF\xBF\xBD");
}

TEST(generate_text_stops_and_shows_nothing_of_it) {
  TextStream stream({"END", "ENOUGH"});
  CHECK_EQ(stream.push("the E"), "the ");
  CHECK_EQ(stream.push("N"), "");
  CHECK_EQ(stream.push("T"), "ENT");
  CHECK_EQ(stream.push("EN"), "");
  CHECK_EQ(stream.push("D of it"), "");
  CHECK(stream.stopped());
  CHECK_EQ(stream.push("more") + stream.finish(), "");
  TextStream other({"END"});
  CHECK_EQ(other.push("EN"), "");
  CHECK_EQ(other.finish(), "EN");
}

TEST(generate_tokenizer_is_bytes_and_marks) {
  const ByteTokenizer bytes = tokenizer();
  CHECK(bytes.encode("A\xC3\xA9 <|a|>x<|a|>b\n") == Ids({65, 0xC3, 0xA9, 32, 256, 'x', 257, 10}));
  CHECK_EQ(bytes.decode(0xC3), "\xC3");
  CHECK_EQ(bytes.decode(256) == "" && bytes.decode(9999) == "" && bytes.decode(-1) == "", true);
  CHECK_EQ(THROWN(InputError, bytes.encode("a\xFF")).found, "another byte at offset 1");
}

TEST(generate_tokenizer_refuses_what_it_cannot_do) {
  const auto refused = [](const std::string& from, const std::string& to) {
    const InputError error = THROWN(InputError, tokenizer(from, to));
    return error.subject.substr(error.subject.rfind(": ") + 2) + "|" + error.found;
  };
  CHECK_EQ(refused("\"merges\": []", "\"merges\": [\"a b\", \"c d\"]"), "model.merges|2 merges");
  CHECK_EQ(refused("\"merges\": []", "\"mergers\": []"), "model.merges|none");
  CHECK_EQ(refused("BPE", "Unigram"), "model.type|Unigram");
  CHECK_EQ(refused("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}"),
           R"(normalizer|{"type":"NFC"})");
  CHECK_EQ(refused("\"post_processor\": null", "\"post_processor\": 1"), "post_processor|1");
  CHECK_EQ(refused("\"add_prefix_space\": false", "\"add_prefix_space\": true").substr(0, 14),
           "pre_tokenizer|");
  CHECK_EQ(refused("\"byte_fallback\": false", "\"byte_fallback\": true"), "model.byte_fallback|true");
  CHECK_EQ(refused("\"\\u0041\": 65", "\"xyz\": 65"), "model.vocab|no letter for byte 65");
  CHECK_EQ(refused("\"normalized\": false", "\"lstrip\": true"), "added_tokens|one with lstrip");
  CHECK_EQ(THROWN(InputError, tokenizer("\"id\": 256", "\"id\": -1")).expected, "a token id");
}

TEST(generate_eos_ids_as_in_python) {
  const Value file = golden("eos.json");
  for (const Value& wanted : items(at(file, "cases"))) {
    const fs::path folder = scratch("eos");
    std::ofstream(folder / "tokenizer.json", std::ios::binary) << text(at(file, "tokenizer"));
    for (const char* name : {"generation_config.json", "tokenizer_config.json"}) {
      const Value& content = at(wanted, name);
      if (!content.is_null()) std::ofstream(folder / name, std::ios::binary) << text(content);
    }
    std::string seen;
    try {
      for (const std::int64_t id : eos_ids(folder, integer(at(file, "vocab"))))
        seen += std::to_string(id) + " ";
    } catch (const InputError& error) {
      seen = error.subject + "|" + error.expected;
    }
    std::string expected;
    // What was found is said in each language's own words.
    if (const std::string* refused = if_text(at(wanted, "error"))) expected = refused->substr(0, refused->rfind('|'));
    for (const Value& id : items(at(wanted, "ids"))) expected += std::to_string(integer(id)) + " ";
    CHECK_EQ(seen, expected);
  }
}

TEST(generate_eos_needs_no_files) { CHECK(eos_ids(scratch("no_eos"), 258).empty()); }
