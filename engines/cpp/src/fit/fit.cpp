#include "elastic_runtime/fit.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <regex>

#include "elastic_runtime/error.h"
#include "files.h"

namespace elastic {
namespace {

constexpr double kMostBytes = 9007199254740991.0;  // MAX_INT of records.py

}  // namespace

std::string VramNeed::text() const {
  return "weights " + gib(weights) + " + states " + gib(states) + " + caches " + gib(caches) + " at " +
         std::to_string(context) + " tokens x " + std::to_string(batch) + " + scratch " + gib(activation) +
         " (" + (activation_measured ? "measured" : "estimated") + ") + reserve " + gib(reserve) + " = " +
         gib(total) + " GiB";
}

VramNeed vram_needed(const BudgetSize& size, std::int64_t context, std::int64_t batch) {
  if (context < 1) throw InputError("context", "at least 1", std::to_string(context));
  if (batch < 1) throw InputError("batch", "at least 1", std::to_string(batch));
  VramNeed need;
  need.context = context;
  need.batch = batch;
  need.weights = size.weight_bytes;
  need.states = times(batch, size.state_bytes);
  need.caches = times(times(batch, size.kv_bytes_per_token), context);
  need.activation = size.activation;
  need.activation_measured = size.activation_measured;
  need.total = plus(plus(plus(need.weights, need.states), plus(need.caches, need.activation)), need.reserve);
  return need;
}

std::string gib(std::int64_t bytes) {
  const double count = static_cast<double>(bytes) / static_cast<double>(kGib);
  char text[40];
  std::snprintf(text, sizeof text, count >= 0.1 || bytes == 0 ? "%.1f" : "%.2f", count);
  return text;
}

std::int64_t parse_bytes(const std::string& text, const std::string& subject) {
  static const std::map<std::string, double> kUnits = {
      {"", 1},      {"B", 1},        {"KB", 1e3},        {"MB", 1e6},           {"GB", 1e9},
      {"TB", 1e12}, {"KIB", 1024.0}, {"MIB", 1048576.0}, {"GIB", 1073741824.0}, {"TIB", 1099511627776.0}};
  static const std::regex kForm(R"(\s{0,8}([0-9]{1,12}(?:\.[0-9]{1,6})?)\s{0,8}([A-Za-z]{0,3})\s{0,8})");
  std::smatch found;
  if (text.size() <= 64 && std::regex_match(text, found, kForm)) {
    std::string unit = found[2];
    for (char& sign : unit) sign = static_cast<char>(sign & ~0x20);  // ASCII letters
    const auto known = kUnits.find(unit);
    const double bytes =
        known == kUnits.end() ? 0 : std::floor(std::strtod(found[1].str().c_str(), nullptr) * known->second);
    if (bytes >= 1 && bytes <= kMostBytes) return static_cast<std::int64_t>(bytes);
  }
  throw InputError(subject, "a size such as 12GiB or 16GB, above 0", show(in_quotes(text)));
}

}  // namespace elastic
