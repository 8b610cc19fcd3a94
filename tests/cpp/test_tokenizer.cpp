// The byte-level tokenizer. That it equals the `tokenizers` library on a real vocabulary is shown by
// test_text.py.
#include <fstream>

#include "check.h"
#include "text/byte_letters.h"
#include "text/byte_level.h"
#include "text/utf8_stream.h"

using namespace elastic;
using namespace elastic_test;

namespace {

using Ids = std::vector<std::int64_t>;

/// The tokenizer of the demo model with one thing replaced.
ByteLevelTokenizer tokenizer(const std::string& from = "", const std::string& to = "") {
  std::string file = tokenizer_text();
  if (!from.empty()) file.replace(file.find(from), from.size(), to);
  return ByteLevelTokenizer(parse_json(file, "t"), "t");
}

std::string refused(const std::string& from, const std::string& to) {
  const InputError error = THROWN(InputError, tokenizer(from, to));
  return error.subject + "|" + error.found;
}

}  // namespace

TEST(tokenizer_streams_whole_characters) {
  Utf8Stream stream;
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

TEST(tokenizer_letters_are_of_bytes) {
  CHECK_EQ(letters_of("a \xC3\n"), "a\xC4\xA0\xC3\x83\xC4\x8A");
  for (int byte = 0; byte < 256; ++byte) {
    const std::string one(1, static_cast<char>(byte));
    CHECK(bytes_of_letters(letters_of(one)) == one);
  }
  CHECK(!bytes_of_letters("a b"));
  CHECK(!bytes_of_letters("\xE4\xBD\xA0"));
}

TEST(tokenizer_is_bytes_and_marks) {
  const ByteLevelTokenizer bytes = tokenizer();
  CHECK(bytes.encode("A\xC3\xA9 <|a|>x<|a|>b\n", true) == Ids({65, 0xC3, 0xA9, 32, 256, 'x', 257, 10}));
  CHECK_EQ(bytes.bytes_of(0xC3), "\xC3");
  CHECK_EQ(bytes.decode({65, 256, 9999, 0xC3, 0xA9, 257, 0xE2}), "A\xC3\xA9<|a|>b\xEF\xBF\xBD");
  for (const std::int64_t id : {std::int64_t{-1}, std::int64_t{1} << 32}) {
    CHECK_EQ(std::string(THROWN(InputError, bytes.decode({65, id})).what()),
             "token ids: expected 0 or more, of 32 bits, found " + std::to_string(id) +
                 ". Give ids of this tokenizer.");
  }
  CHECK_EQ(THROWN(InputError, bytes.encode("a\xFF", true)).found, "an invalid byte at 1");
}

TEST(tokenizer_merges_by_rank) {
  const std::string vocab = "\"\\u0061\": 97",
                    more = vocab + R"(, "ab": 300, "bc": 301, "abc": 302, "cd": 303)";
  std::string file = tokenizer_text();
  file.replace(file.find(vocab), vocab.size(), more);
  const auto with = [&](const std::string& merges, const std::string& options = "") {
    std::string text = file;
    const std::string from = "\"merges\": []";
    text.replace(text.find(from), from.size(), options + "\"merges\": [" + merges + "]");
    text.replace(text.find("\"id\": 256"), 9, "\"id\": 260");  // four tokens more are four ids
    text.replace(text.find("\"id\": 257"), 9, "\"id\": 261");
    return ByteLevelTokenizer(parse_json(text, "t"), "t");
  };
  try {
    CHECK(with(R"(["b", "c"], ["a", "b"])").encode("abcab", true) == Ids({97, 301, 300}));
    CHECK(with(R"("a b", "b c", "ab c")").encode("abc bc", true) == Ids({302, 32, 301}));
    CHECK(with(R"("b c", "c d")").encode("abcd", true) == Ids({97, 301, 100}));
    CHECK(with(R"("b c", "c d")", "\"ignore_merges\": true, ").encode("abc abc", true) ==
          Ids({302, 32, 97, 301}));
  } catch (const UnavailableError& error) {  // a build without PCRE2
    CHECK_EQ(error.expected, "a library built with PCRE2, which text needs");
    return;
  }
  CHECK_EQ(THROWN(InputError, with(R"("a x")")).found, "'ax', which is none");
  CHECK_EQ(THROWN(InputError, with(R"("a b", "a b c")")).subject, "t: model.merges[1]");
}

TEST(tokenizer_finds_the_longest_of_many_added_tokens) {
  std::string tokens;
  for (int i = 0; i < 100'000; ++i)
    tokens += R"(, {"content": "<)" + std::to_string(i) + R"(", "id": )" + std::to_string(258 + i) + "}";
  const ByteLevelTokenizer many = tokenizer("\"normalized\": false}", "\"normalized\": false}" + tokens);
  CHECK(many.encode("<4<42<99999<-", true) == Ids({262, 300, 258 + 99'999, '<', '-'}));
}

TEST(tokenizer_puts_a_frame_around_a_text) {
  const std::string frame =
      R"("post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<|a|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<|a|>": {"id": "<|a|>", "ids": [256], "tokens": ["<|a|>"]}}}]})";
  const ByteLevelTokenizer framed = tokenizer("\"post_processor\": null", frame);
  CHECK(framed.encode("x", true) == Ids({256, 'x'}));
  CHECK(framed.encode("x", false) == Ids({'x'}));
}

TEST(tokenizer_refuses_what_it_cannot_do) {
  CHECK_EQ(refused("\"merges\": []", "\"mergers\": []"), "t: model.merges|null");
  CHECK_EQ(refused("BPE", "Unigram"), "t: model.type|Unigram");
  CHECK_EQ(refused("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}"),
           R"(t: normalizer|{"type":"NFC"})");
  CHECK_EQ(refused("\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": null"), "t: decoder|null");
  CHECK_EQ(refused("\"post_processor\": null", "\"post_processor\": 1"), "t: post_processor|1");
  CHECK_EQ(refused("\"add_prefix_space\": false", "\"add_prefix_space\": true").substr(0, 17),
           "t: pre_tokenizer|");
  CHECK_EQ(refused("\"byte_fallback\": false", "\"byte_fallback\": true"), "t: model.byte_fallback|true");
  CHECK_EQ(refused("\"\\u0041\": 65", "\"xyz\": 65"), "t: model.vocab|none for byte 65");
  CHECK_EQ(refused("\"normalized\": false", "\"lstrip\": true"), "t: added_tokens: '<|a|>b'|one with lstrip");
  CHECK_EQ(refused("\"id\": 256", "\"id\": -1"), "t: added_tokens: '<|a|>'|-1");
  CHECK_EQ(refused("\"\\u0041\": 65", "\"\\u0041\": 65.5"), "t: model.vocab: 'A'|65.5");
  CHECK_EQ(refused("\"\\u0041\": 65", "\"\\u0041\": 66"), "t: model.vocab: 'B'|66, that of 'A'");
  CHECK_EQ(
      refused("\"post_processor\": null",
              R"("post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "a"}}],
                   "special_tokens": {"a": {"ids": [-5]}}})"),
      R"(t: post_processor|{"SpecialToken":{"id":"a"}})");
}

TEST(tokenizer_needs_its_file) {
  const std::string folder = scratch("tokenizer");
  CHECK_EQ(THROWN(InputError, read_tokenizer(folder)).expected, "the bundle's tokenizer");
  std::ofstream(folder + "/tokenizer.json", std::ios::binary) << tokenizer_text();
  CHECK(read_tokenizer(folder)->encode("<|b|>", true) == Ids({'<', '|', 'b', '|', '>'}));
  std::ofstream(folder + "/tokenizer_config.json")
      << R"({"additional_special_tokens": ["<|b|>"], "model_max_length": 1e999})";
  const auto more = read_tokenizer(folder);
  CHECK(more->encode("a<|b|>", true) == Ids({'a', 258}));
  CHECK_EQ(more->decode({'a', 258}), "a");
  std::ofstream(folder + "/tokenizer_config.json") << R"({"split_special_tokens": true})";
  CHECK_EQ(THROWN(InputError, read_tokenizer(folder)).found, "true");
}

TEST(tokenizer_reads_only_patterns_that_mean_the_same) {
  CHECK_EQ(
      pcre2_syntax(R"([^\s\p{L}]+|\s+(?!\S)|(?i:'s)|\p{Nd}{1,3}|[\r\n/]*?\d)", "p"),
      R"([^\p{White_Space}\p{L}]+|\p{White_Space}+(?!\P{White_Space})|(?i:'s)|\p{Nd}{1,3}|[\r\n/]*?\p{Nd})");
  for (const char* bad : {R"(^a)", R"(a$)", R"(\w+)", R"(\p{Han})", R"(\p{^L})", R"([a[b]])", R"([a&&b])",
                          R"([]a])", R"([a)", R"((?<n>a))", R"((*UTF)a)", R"(a{,3})", R"(a{2}+)", R"(a{2}?)",
                          R"(\h)", R"(\v)", R"(\x41)", "\\", R"(\p{L)"}) {
    CHECK_EQ(std::string(bad) + THROWN(InputError, pcre2_syntax(bad, "p")).subject, std::string(bad) + "p");
  }
}
