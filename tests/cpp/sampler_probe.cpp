// Ids, and the time they take, for logits on standard input: what holds the samplers of both languages
// together.
//
// A case is int64 V, double temperature, int64 top_k, double top_p, uint64 seed, int64 draws and float[V], as
// this machine lays them out. The line of a case: its ids, then after `|` the least and the median of
// milliseconds a token.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "elastic_runtime/sampler.h"

namespace {

template <typename T>
bool read(T* values, std::size_t count) {
  return std::fread(values, sizeof(T), count, stdin) == count;
}

}  // namespace

int main() {
  std::int64_t count = 0, draws = 0;
  elastic::Sampling sampling;
  while (read(&count, 1) && read(&sampling.temperature, 1) && read(&sampling.top_k, 1) &&
         read(&sampling.top_p, 1) && read(&sampling.seed, 1) && read(&draws, 1)) {
    std::vector<float> logits(static_cast<std::size_t>(count));
    if (!read(logits.data(), logits.size())) return 1;
    elastic::Sampler sampler(sampling);
    std::vector<double> times;
    for (std::int64_t draw = 0; draw < draws; ++draw) {
      const auto start = std::chrono::steady_clock::now();
      const std::int64_t id = sampler.sample(logits.data(), logits.size());
      const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
      times.push_back(taken.count());
      std::printf("%lld ", static_cast<long long>(id));
    }
    std::sort(times.begin(), times.end());
    std::printf("| %.4f %.4f\n", times.front(), times[times.size() / 2]);
  }
  return 0;
}
