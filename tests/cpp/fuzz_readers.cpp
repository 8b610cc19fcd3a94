// Throws mutated files at every reader of the library. An error of ours is an answer; anything else is a
// finding.
//
//     fuzz_readers SECONDS [SEED]        the loop below, with any compiler
//
// Built with ELASTIC_LIBFUZZER=ON and clang it is a libFuzzer target instead, with that tool's own command
// line. The first byte of an input picks the reader.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "check.h"
#include "elastic_runtime/choose.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/manifest.h"
#include "elastic_runtime/sampler.h"
#include "elastic_runtime/weights.h"
#include "text/byte_level.h"
#include "unicode.h"

using namespace elastic;

namespace {

constexpr int kReaders = 4;

/// Cut what an accepted recipe names out of memory that just holds it.
void cut(const WeightRecipe& recipe) {
  for (const WeightInput& input : recipe.inputs) {
    const StoredSlice& part = input.parts.at(0);  // the format has no more
    if (part.parent_nbytes() > 1 << 20) continue;
    const std::vector<std::byte> source(static_cast<std::size_t>(part.parent_nbytes()));
    std::vector<std::byte> target(static_cast<std::size_t>(input.nbytes()));
    const auto item = static_cast<std::uint64_t>(itemsize(part.dtype));
    read_blocks(reader_of(source.data()), target.data(), strided_blocks(part.parent_shape, part.runs, item));
  }
}

/// Ask an accepted manifest what a consumer asks.
void ask(const Manifest& manifest) {
  for (const std::int64_t context : {std::int64_t{1}, std::int64_t{64}, std::int64_t{1} << 40}) {
    if (choose(manifest.budgets, {kGib, context, context, {}}).explain().empty()) std::abort();
  }
}

bool read(int reader, const std::string& data) {
  try {
    if (reader == 0) ask(parse_manifest(reseal(data)));
    if (reader == 1) cut(parse_recipe(data));
    if (reader == 2 && parse_json(data, "x.json").is_null()) std::abort();
    if (reader == 3) ByteLevelTokenizer(parse_json(data, "t"), "t").encode("a<|a|>b\xC3\xA9", true);
    return true;
  } catch (const Error& error) {
    const std::string what = error.what();
    if (what.empty() || invalid_utf8(what) != std::string::npos || what.size() > 4096 + data.size())
      std::abort();
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0) read(data[0] % kReaders, std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
  return 0;
}

#ifndef ELASTIC_LIBFUZZER

namespace {

/// Bytes that matter to the readers: pieces of JSON, edges of integers, broken UTF-8.
const std::vector<std::string> kPieces = {"{",
                                          "}",
                                          "[",
                                          "]",
                                          ",",
                                          ":",
                                          "\"",
                                          "\\",
                                          "null",
                                          "true",
                                          "-",
                                          "0",
                                          "1",
                                          "9007199254740992",
                                          "9223372036854775807",
                                          "1e999",
                                          "..",
                                          "/",
                                          "[[0, 1]]",
                                          "\"B\"",
                                          "\xff",
                                          "\xed\xa0\x80",
                                          "\xc3",
                                          "\\ud800",
                                          std::string(1, '\0'),
                                          "99999999999999999999",
                                          "0.5",
                                          "{}",
                                          "[]"};

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : seed_(seed) {}

  std::string mutate(std::string data, const std::string& other) {
    for (std::uint64_t i = 0, count = 1 + below(4); i < count; ++i) data = once(std::move(data), other);
    return data;
  }
  std::size_t below(std::size_t bound) { return bound == 0 ? 0 : random_word(seed_, draws_++) % bound; }

 private:
  std::string once(std::string data, const std::string& other) {
    const std::size_t at = below(data.size() + 1), size = below(1 + below(40));
    switch (below(6)) {
      case 0:
        if (at < data.size()) data[at] = static_cast<char>(data[at] ^ (1 << below(8)));
        return data;
      case 1:
        return data.erase(at, size);
      case 2:
        return data.insert(at, kPieces[below(kPieces.size())]);
      case 3:
        return data.replace(at, size, kPieces[below(kPieces.size())]);
      case 4:
        return data.insert(at, other.substr(below(other.size() + 1), size));
      default:  // a number for a number: what the checks behind the grammar are about
        return replace_number(std::move(data), at);
    }
  }

  std::string replace_number(std::string data, std::size_t at) {
    const auto first = data.find_first_of("0123456789", at);
    if (first == std::string::npos) return data;
    const auto last = std::min(data.find_first_not_of("0123456789", first), data.size());
    const std::int64_t bits = static_cast<std::int64_t>(random_word(seed_, draws_++) >> below(64));
    return data.replace(first, last - first, std::to_string(below(8) == 0 ? -bits : bits));
  }

  std::uint64_t seed_, draws_ = 0;
};

std::vector<std::string> seeds_of(int reader) {
  if (reader == 3) return {elastic_test::tokenizer_text()};
  const Value file = elastic_test::golden("errors.json");
  const char* groups[] = {"manifest", "weights", "json"};
  std::string base = elastic_test::text(elastic_test::at(elastic_test::at(file, groups[reader]), "base"));
  return {base};
}

}  // namespace

int main(int count, char** arguments) {
  const double seconds = count > 1 ? std::atof(arguments[1]) : 5;
  Mutator mutator(count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 1);
  std::vector<std::vector<std::string>> pools;
  for (int reader = 0; reader < kReaders; ++reader) pools.push_back(seeds_of(reader));
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t runs[kReaders] = {}, accepted[kReaders] = {};
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds) {
    for (int i = 0; i < 256; ++i) {
      const int reader = static_cast<int>(mutator.below(kReaders));
      auto& pool = pools[static_cast<std::size_t>(reader)];
      const std::string data =
          mutator.mutate(pool[mutator.below(pool.size())], pool[mutator.below(pool.size())]);
      ++runs[reader];
      if (!read(reader, data)) continue;
      ++accepted[reader];
      if (data.size() > 20000) continue;
      if (pool.size() < 2000)
        pool.push_back(data);  // what is accepted is the start of stranger things
      else
        pool[1 + mutator.below(pool.size() - 1)] = data;
    }
  }
  const char* names[kReaders] = {"manifest", "weights", "json", "tokenizer"};
  for (int reader = 0; reader < kReaders; ++reader) {
    std::cout << names[reader] << ": " << runs[reader] << " files, " << accepted[reader]
              << " accepted, no finding\n";
  }
  return 0;
}

#endif
