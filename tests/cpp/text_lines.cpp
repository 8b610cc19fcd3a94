// Encodes or decodes line by line, so that another language can compare.
//
//     elastic_text FOLDER encode         JSON texts, one a line, to ids
//     elastic_text FOLDER decode         ids, one sequence a line, to JSON lists of the pieces of their
//     streams
//
// The seconds that opening the tokenizer and the work took go to standard error.
#include <chrono>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "elastic_runtime/error.h"
#include "elastic_runtime/tokenizer.h"
#include "format/json.h"

namespace {

using namespace elastic;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<std::string> lines() {
  std::vector<std::string> all;
  for (std::string line; std::getline(std::cin, line);) all.push_back(line);
  return all;
}

std::vector<std::int64_t> ids_of(const std::string& line) {
  std::istringstream words(line);
  std::vector<std::int64_t> ids;
  for (std::int64_t id = 0; words >> id;) ids.push_back(id);
  return ids;
}

void encode(const Tokenizer& tokenizer) {
  std::vector<std::string> texts;
  for (const std::string& line : lines()) texts.push_back(Value::parse(line).get<std::string>());
  std::vector<std::vector<std::int64_t>> made;
  const double start = now();
  for (const std::string& text : texts) made.push_back(tokenizer.encode(text, true));
  std::cerr << now() - start << "\n";
  for (const auto& ids : made) {
    for (const std::int64_t id : ids) std::cout << id << ' ';
    std::cout << '\n';
  }
}

void decode(const Tokenizer& tokenizer) {
  std::vector<std::vector<std::int64_t>> sequences;
  for (const std::string& line : lines()) sequences.push_back(ids_of(line));
  std::vector<std::vector<std::string>> made;
  const double start = now();
  for (const auto& ids : sequences) {
    const auto stream = tokenizer.stream();
    auto& pieces = made.emplace_back();
    for (const std::int64_t id : ids) pieces.push_back(stream->push(id));
    pieces.push_back(stream->finish());
  }
  std::cerr << now() - start << "\n";
  for (const auto& pieces : made) std::cout << Value(pieces).dump() << '\n';
}

}  // namespace

int main(int count, char** arguments) try {
  if (count != 3) return 2;
  const double start = now();
  const auto tokenizer = read_tokenizer(std::filesystem::u8path(arguments[1]));
  std::cerr << now() - start << "\n";
  std::string(arguments[2]) == "encode" ? encode(*tokenizer) : decode(*tokenizer);
  return 0;
} catch (const Error& error) {
  std::cerr << error.what() << "\n";
  return error.exit_code();
}
