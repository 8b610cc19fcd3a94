#include <fstream>

#include "check.h"
#include "counting_backend.h"
#include "elastic_runtime/generate.h"
#include "words.h"

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
  CHECK_EQ(THROWN(InputError, StopText({""})).subject, "stop string");
}

TEST(generate_text_stops_and_shows_nothing_of_it) {
  StopText text({"END", "ENOUGH"});
  CHECK_EQ(text.push("the E"), "the ");
  CHECK_EQ(text.push("N"), "");
  CHECK_EQ(text.push("T"), "ENT");
  CHECK_EQ(text.push("EN"), "");
  CHECK_EQ(text.push("D of it"), "");
  CHECK(text.stopped());
  CHECK_EQ(text.push("more") + text.finish(), "");
  StopText other({"END"});
  CHECK_EQ(other.push("EN"), "");
  CHECK_EQ(other.finish(), "EN");
}

TEST(generate_takes_a_tokenizer_of_the_program) {
  const Words words;
  CHECK_EQ(words.decode({1, 2}), "w1 w2 ");
  GenerateOptions options;
  options.max_new = 4;
  const Ids made = expected({7}, 300, 4);
  Session session = session_of();
  const auto whole = generate(session, {{7}}, options, &words);
  CHECK_EQ(whole[0].text, words.decode(made));
  options.stop_texts = {std::to_string(made[1])};
  session.reset();
  const auto cut = generate(session, {{7}}, options, &words);
  CHECK(cut[0].stop == Stop::kText);
  CHECK_EQ(cut[0].text, words.decode({made[0]}) + "w");
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
    if (const std::string* refused = if_text(at(wanted, "error")))
      expected = refused->substr(0, refused->rfind('|'));
    for (const Value& id : items(at(wanted, "ids"))) expected += std::to_string(integer(id)) + " ";
    CHECK_EQ(seen, expected);
  }
}

TEST(generate_eos_needs_no_files) { CHECK(eos_ids(scratch("no_eos"), 258).empty()); }
