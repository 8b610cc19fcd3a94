#include "elastic_runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
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

/// A number that orders as logits do, the largest logit first; 0.0 and -0.0 are equal.
std::uint32_t descending(float logit) {
  const float plain = logit + 0.0f;
  std::uint32_t bits;
  std::memcpy(&bits, &plain, sizeof bits);
  return bits >> 31 ? bits : bits ^ 0x7FFFFFFFu;
}

int exponent_of(std::size_t count) {
  int bits = 0;  // ceil(log2 count)
  while (((count - 1) >> bits) != 0) ++bits;
  return 53 - bits;
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
  const double y = x * 1.4426950408889634 + 0.5;
  std::int64_t k =
      static_cast<std::int64_t>(y);  // floor(y): std::floor and std::ldexp are calls of a library
  if (static_cast<double>(k) > y) --k;
  const double whole = static_cast<double>(k);
  const double r = (x - whole * 0.693147180369123816490) - whole * 1.90821492927058770002e-10;
  double p = kInverseFactorial[13];
  for (int i = 12; i >= 0; --i) p = p * r + kInverseFactorial[i];
  const auto bits = static_cast<std::uint64_t>(k + 1023) << 52;  // 2^k; k is at least -1021
  double power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

Sampler::Sampler(const Sampling& sampling) : sampling_(sampling) { check(sampling_); }

std::int64_t Sampler::sample(const float* logits, std::size_t count) {
  const std::size_t first = best(logits, count);
  if (sampling_.temperature == 0) return static_cast<std::int64_t>(first);
  weigh(logits, count, static_cast<double>(logits[first]));
  if (sampling_.top_k > 0 && sampling_.top_k < static_cast<std::int64_t>(candidates_.size())) {
    keep_leading([](const Candidate&) { return 1.0; }, static_cast<double>(sampling_.top_k));
  }
  if (sampling_.top_p < 1) {
    keep_leading([](const Candidate& candidate) { return candidate.weight; }, sampling_.top_p * total());
  }
  return draw();
}

/// Step 1. Many of weight 0 are left out, for nothing depends on them.
void Sampler::weigh(const float* logits, std::size_t count, double largest) {
  const int exponent = exponent_of(count);
  const double scale = std::ldexp(1.0, exponent), ln2 = 0.6931471805599453;
  // One temperature and more beyond where weights become 0, so that no rounding here matters.
  const auto least = largest - (exponent + 3) * ln2 * sampling_.temperature;
  candidates_.clear();
  for (std::size_t id = 0; id < count; ++id) {
    const auto logit = static_cast<double>(logits[id]);
    if (!(logit >= least)) continue;
    const double weight = std::floor(exact_exp((logit - largest) / sampling_.temperature) * scale + 0.5);
    candidates_.push_back({descending(logits[id]), static_cast<std::uint32_t>(id), weight});
  }
}

/// Keeps the shortest prefix in the order (logit descending, id ascending) whose measure adds up to `wanted`,
/// which is at most that of all. A radix selection: the digits of the last key are found one after the other,
/// the highest first, each by a histogram of what the digits before it leave.
template <typename Measure>
void Sampler::keep_leading(const Measure& measure, double wanted) {
  constexpr struct {
    int shift;
    std::uint32_t mask;
  } kDigits[] = {{20, 0xFFF}, {8, 0xFFF}, {0, 0xFF}};
  inside_.resize(candidates_.size());  // those with the digits found so far
  for (std::size_t i = 0; i < inside_.size(); ++i) inside_[i] = static_cast<std::uint32_t>(i);
  double before = 0;  // the measure of all before them
  for (const auto& digits : kDigits) {
    const auto digit_of = [&](std::uint32_t i) { return (candidates_[i].key >> digits.shift) & digits.mask; };
    sums_.assign(digits.mask + std::size_t{1}, 0.0);
    for (const std::uint32_t i : inside_) sums_[digit_of(i)] += measure(candidates_[i]);
    std::uint32_t digit = 0;
    while (before + sums_[digit] < wanted) before += sums_[digit++];
    const auto other = [&](std::uint32_t i) { return digit_of(i) != digit; };
    inside_.erase(std::remove_if(inside_.begin(), inside_.end(), other), inside_.end());
  }
  std::size_t last = 0;  // equal logits by their ids
  while ((before += measure(candidates_[inside_[last]])) < wanted) ++last;
  const std::uint32_t key = candidates_[inside_[last]].key, id = candidates_[inside_[last]].id;
  const auto leaves = [&](const Candidate& c) { return c.key > key || (c.key == key && c.id > id); };
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), leaves), candidates_.end());
}

double Sampler::total() const {
  double sum = 0;
  for (const Candidate& candidate : candidates_) sum += candidate.weight;
  return sum;
}

std::int64_t Sampler::draw() {
  const double u = static_cast<double>(random_word(sampling_.seed, draws_++) >> 11) * 0x1p-53;
  const double wanted = u * total();
  double sum = 0;
  std::size_t i = 0;
  while ((sum += candidates_[i].weight) <= wanted) ++i;
  return candidates_[i].id;
}

}  // namespace elastic
