#include "elastic_runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "elastic_runtime/error.h"

namespace elastic {
namespace {

constexpr double kInverseFactorial[] = {
    1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
    1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};

std::string number_text(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  return text.back() == '.' ? text + "0" : text;
}

void check(const Sampling& sampling) {
  if (!(sampling.temperature >= 0) || std::isinf(sampling.temperature)) {
    throw InputError("temperature", "a number from 0", number_text(sampling.temperature));
  }
  if (sampling.top_k < 0) throw InputError("top_k", "0 (no limit) or more", std::to_string(sampling.top_k));
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    throw InputError("top_p", "a number above 0, up to 1", number_text(sampling.top_p));
  }
}

/// The id of the largest logit, the lowest of equal ones.
std::size_t best(const float* logits, std::size_t count) {
  std::size_t result = 0;
  for (std::size_t id = 0; id < count; ++id) {
    if (std::isnan(logits[id]) || logits[id] == std::numeric_limits<float>::infinity()) {
      throw BuildError("logits", "finite numbers",
                       (std::isnan(logits[id]) ? "nan" : "inf") + (" at id " + std::to_string(id)),
                       "verify the bundle");
    }
    if (logits[id] > logits[result]) result = id;
  }
  if (count == 0 || std::isinf(logits[result])) {
    throw BuildError("logits", "finite numbers", "not one", "verify the bundle");
  }
  return result;
}

}  // namespace

std::uint64_t random_word(std::uint64_t seed, std::uint64_t n) {
  std::uint64_t z = seed + (n + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

double exact_exp(double x) {
  if (x < -708) return 0;
  const double k = std::floor(x * 1.4426950408889634 + 0.5);
  const double r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
  double p = kInverseFactorial[13];
  for (int i = 12; i >= 0; --i) p = p * r + kInverseFactorial[i];
  return std::ldexp(p, static_cast<int>(k));
}

Sampler::Sampler(const Sampling& sampling) : sampling_(sampling) { check(sampling_); }

std::int64_t Sampler::sample(const float* logits, std::size_t count) {
  const std::size_t first = best(logits, count);
  if (sampling_.temperature == 0) return static_cast<std::int64_t>(first);
  order(logits, count);
  weights_.clear();
  double total = 0;
  for (const Candidate& candidate : candidates_) {
    const double distance = static_cast<double>(candidate.logit) - static_cast<double>(candidates_[0].logit);
    weights_.push_back(exact_exp(distance / sampling_.temperature));
    total += weights_.back();
  }
  if (sampling_.top_p < 1) {
    const double wanted = sampling_.top_p * total;
    double sum = 0;
    std::size_t kept = 0;
    while (kept < weights_.size() && sum < wanted) sum += weights_[kept++];
    weights_.resize(kept);
  }
  return draw();
}

/// Steps 1 and 2. Only the first k are sorted where there is a k.
void Sampler::order(const float* logits, std::size_t count) {
  candidates_.clear();
  for (std::size_t id = 0; id < count; ++id) {
    if (!std::isinf(logits[id])) candidates_.push_back({logits[id], static_cast<std::int64_t>(id)});
  }
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  const auto most = static_cast<std::int64_t>(candidates_.size());
  const std::int64_t kept = sampling_.top_k == 0 ? most : std::min(sampling_.top_k, most);
  std::partial_sort(candidates_.begin(), candidates_.begin() + kept, candidates_.end(), before);
  candidates_.resize(static_cast<std::size_t>(kept));
}

std::int64_t Sampler::draw() {
  double total = 0;
  for (const double weight : weights_) total += weight;
  const double u = static_cast<double>(random_word(sampling_.seed, draws_++) >> 11) * 0x1p-53;
  const double wanted = u * total;
  double sum = 0;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    sum += weights_[i];
    if (sum > wanted) return candidates_[i].id;
  }
  return candidates_[weights_.size() - 1].id;
}

}  // namespace elastic
