// From logits to a token id. The same logits, settings and seed give the same ids in every language, bit for
// bit, because the algorithm below uses only what IEEE 754 defines exactly: comparisons and +, -, *, / of
// doubles, one at a time, in the order written, never fused (compile with contraction off).
//
// Input: logits l[0..V-1], float32; -inf is allowed, NaN, +inf and all -inf are errors.
//
//   greedy (temperature 0): the largest logit; of equal ones the lowest id. No random word is used.
//
//   otherwise, with weights that are whole numbers, so that their sums are exact in any order and nothing has
//   to be sorted:
//   1. weight    w[i] = floor(e((double(l[i]) - double(l_max)) / temperature) * 2^s + 0.5), all in doubles,
//                s = 53 - ceil(log2 V): all V of them add up to at most 2^53, below which doubles hold every
//                whole number. It is 0 from about (s + 1) * ln 2 temperatures below l_max on, and for -inf
//   2. top-k     the first k candidates in the order (logit descending, id ascending); k = 0: all
//   3. top-p     of these the shortest prefix in that order with a sum >= top_p * (the sum of all of them);
//                1: all
//   4. draw      u = (word(seed, n) >> 11) * 2^-53, n the number of draws made before from this seed; in the
//                order of ids, the first that stayed whose running sum is > u * (the sum of all that stayed)
//
//   No weight is off by more than 2^-(s+1) of the sum through rounding, and all of them together by at most
//   V * 2^-(s+1): 7e-12 and 1e-6 for V = 131072. u times a sum S <= 2^53 is below S after rounding, so step 4
//   always ends at a candidate, and never at one of weight 0.
//
//   word(seed, n), splitmix64, all arithmetic modulo 2^64 (the generator of sketch.py):
//       z = seed + (n + 1) * 0x9E3779B97F4A7C15
//       z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
//       z = (z ^ (z >> 27)) * 0x94D049BB133111EB
//       word = z ^ (z >> 31)
//
//   e(x), x <= 0, exp to about 1 unit in the last place; 0 below -708:
//       k = floor(x * 1.4426950408889634 + 0.5)
//       r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10      (ln 2 in two parts)
//       p = 1/13!;  for i = 12, 11, ..., 0:  p = p * r + 1/i!                       (1/i! rounded to double)
//       e = p * 2^k
//
// A batch draws for row b with the seed `seed + b` (modulo 2^64). Repetition penalties are not applied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace elastic {

struct Sampling {
  double temperature = 0;  ///< 0: greedy
  std::int64_t top_k = 0;  ///< 0: no limit
  double top_p = 1;        ///< in (0, 1]
  std::uint64_t seed = 0;
};

/// Draws token ids for one sequence.
class Sampler {
 public:
  /// Throws InputError: temperature below 0 or not finite, top_k below 0, top_p outside of (0, 1].
  explicit Sampler(const Sampling& sampling);

  /// The next id for `count` logits. Throws BuildError about logits that are no distribution.
  std::int64_t sample(const float* logits, std::size_t count);

 private:
  struct Candidate {
    std::uint32_t key;  ///< orders as logits do, the largest logit first
    std::uint32_t id;
    double weight;
  };
  void weigh(const float* logits, std::size_t count, double largest);
  template <typename Measure>
  void keep_leading(const Measure& measure, double wanted);
  double total() const;
  std::int64_t draw();

  Sampling sampling_;
  std::uint64_t draws_ = 0;
  std::vector<Candidate> candidates_;  // in the order of ids; kept between calls: the vocabulary is large
  std::vector<std::uint32_t> inside_;
  std::vector<double> sums_;
};

/// Word `n` of the generator, from 0.
std::uint64_t random_word(std::uint64_t seed, std::uint64_t n);

/// e(x) of the header comment.
double exact_exp(double x);

}  // namespace elastic
