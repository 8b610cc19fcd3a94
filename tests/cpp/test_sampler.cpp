#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "elastic_runtime/sampler.h"

using namespace elastic;
using namespace elastic_test;

namespace {

double number(const Value& value) {
  const auto* real = value.get_ptr<const double*>();
  return real ? *real : static_cast<double>(integer(value));
}

/// The logits of a golden case: multiples of `step`, so that some are equal.
std::vector<float> logits_of(const Value& group, std::uint64_t draw) {
  std::vector<float> logits(static_cast<std::size_t>(integer(at(group, "count"))));
  const auto seed = static_cast<std::uint64_t>(integer(at(group, "seed")));
  const double scale = number(at(group, "scale")), step = number(at(group, "step"));
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const std::uint64_t word = random_word(seed, draw * logits.size() + i);
    const double value = (static_cast<double>(word >> 11) * 0x1p-53 - 0.5) * scale;
    logits[i] = static_cast<float>(std::floor(value / step) * step);
  }
  return logits;
}

}  // namespace

TEST(sampler_equals_python) {
  const Value file = golden("sampler.json");
  for (const Value& group : items(at(file, "groups"))) {
    for (const Value& wanted : items(at(group, "cases"))) {
      Sampler sampler({number(at(wanted, "temperature")), integer(at(wanted, "top_k")),
                       number(at(wanted, "top_p")), static_cast<std::uint64_t>(integer(at(wanted, "seed")))});
      std::uint64_t draw = 0;
      for (const Value& id : items(at(wanted, "ids"))) {
        const auto logits = logits_of(group, draw++);
        CHECK_EQ(sampler.sample(logits.data(), logits.size()), integer(id));
      }
    }
  }
}

TEST(sampler_random_words_are_splitmix64) {
  CHECK_EQ(random_word(1234567, 0),
           6457827717110365317u);  // the published test vector of splitmix64
  CHECK_EQ(random_word(1234567, 1), 3203168211198807973u);
}

TEST(sampler_exp_is_exp) {
  for (double x = 0; x > -700; x -= 0.37) {
    const double wanted = std::exp(x);
    CHECK(std::abs(exact_exp(x) - wanted) <= 4e-16 * wanted);
  }
  CHECK_EQ(exact_exp(0), 1.0);
  CHECK_EQ(exact_exp(-1e9), 0.0);
  CHECK_EQ(exact_exp(-std::numeric_limits<double>::infinity()), 0.0);
}

TEST(sampler_ties_go_to_the_lowest_id) {
  const float logits[] = {0, 3, 3, 1};
  CHECK_EQ(Sampler({}).sample(logits, 4), 1);
  CHECK_EQ(Sampler({1.0, 1, 1.0, 5}).sample(logits, 4), 1);
  CHECK_EQ(Sampler({1.0, 0, 1e-9, 5}).sample(logits, 4), 1);
}

TEST(sampler_draws_by_weight) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float logits[] = {std::log(1.0f), std::log(3.0f), -infinity};
  Sampler sampler({1.0, 0, 1.0, 42});
  int counts[3] = {};
  for (int i = 0; i < 4000; ++i) ++counts[sampler.sample(logits, 3)];
  CHECK_EQ(counts[2], 0);
  CHECK(counts[1] > 2850 && counts[1] < 3150);  // 3000 expected, sigma 27
}

TEST(sampler_takes_all_where_top_k_is_beyond_them) {
  const float logits[] = {0, 1, 2, 1};
  Sampler all({9.0, 0, 1.0, 6}), one_more({9.0, 5, 1.0, 6});
  Sampler most({9.0, std::numeric_limits<std::int64_t>::max(), 1.0, 6});
  for (int i = 0; i < 50; ++i) {
    const std::int64_t id = all.sample(logits, 4);
    CHECK_EQ(one_more.sample(logits, 4), id);
    CHECK_EQ(most.sample(logits, 4), id);
  }
}

TEST(sampler_refuses_nonsense) {
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  const float with_nan[] = {1, nan, 2}, with_inf[] = {1, infinity}, all_out[] = {-infinity, -infinity};
  CHECK_EQ(THROWN(BuildError, Sampler({}).sample(with_nan, 3)).found, "nan at id 1");
  CHECK_EQ(THROWN(BuildError, Sampler({1.0, 0, 1.0, 1}).sample(with_inf, 2)).found, "inf at id 1");
  CHECK_EQ(THROWN(BuildError, Sampler({}).sample(all_out, 2)).found, "not one");
  CHECK_EQ(THROWN(InputError, Sampler({-0.5, 0, 1.0, 1})).subject, "temperature");
  CHECK_EQ(THROWN(InputError, Sampler({std::nan(""), 0, 1.0, 1})).subject, "temperature");
  CHECK_EQ(THROWN(InputError, Sampler({1.0, -1, 1.0, 1})).subject, "top_k");
  CHECK_EQ(THROWN(InputError, Sampler({1.0, 0, 0.0, 1})).found, "0.0");
  CHECK_EQ(THROWN(InputError, Sampler({1.0, 0, 1.5, 1})).subject, "top_p");
}
