#include "elastic_runtime/fit.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "elastic_runtime/error.h"
#include "elastic_runtime/json.h"
#include "files.h"

namespace elastic {

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
  static const struct {
    const char* name;
    double factor;
  } kUnits[] = {{"", 1},
                {"B", 1},
                {"KiB", 1024.0},
                {"MiB", 1048576.0},
                {"GiB", 1073741824.0},
                {"TiB", 1099511627776.0},
                {"KB", 1e3},
                {"MB", 1e6},
                {"GB", 1e9},
                {"TB", 1e12}};
  const auto digits = text.find_first_not_of("0123456789.");
  const auto unit_at = text.find_first_not_of(' ', digits);
  const std::string number = text.substr(0, digits);
  const std::string unit = unit_at == std::string::npos ? "" : text.substr(unit_at);
  char* end = nullptr;
  const double count = std::strtod(number.c_str(), &end);
  for (const auto& known : kUnits) {
    if (number.empty() || *end != '\0' || unit != known.name) continue;
    const double bytes = std::floor(count * known.factor);
    if (bytes >= 1 && bytes < 1e18) return static_cast<std::int64_t>(bytes);
  }
  throw InputError(subject, "a size above zero such as 12GiB", show(text));
}

}  // namespace elastic
