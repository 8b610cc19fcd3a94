// Loads every weight of FOLDER/weights.json several times and prints the seconds of the fastest, of the clock
// and of all processors, for tests/bench/slice_weights.py.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <limits>
#include <vector>

#include "elastic_runtime/error.h"
#include "elastic_runtime/weights.h"

int main(int count, char** arguments) {
  if (count != 2) return std::fputs("slice_probe FOLDER\n", stderr), 2;
  try {
    const std::filesystem::path folder = arguments[1];
    const elastic::WeightRecipe recipe = elastic::read_recipe(folder / "weights.json");
    double fastest = std::numeric_limits<double>::infinity(), least = fastest;
    for (int round = 0; round < 6; ++round) {
      const auto begun = std::chrono::steady_clock::now();
      const std::clock_t worked = std::clock();
      const elastic::WeightFiles files(recipe, folder);
      std::vector<elastic::Weight> held;
      for (const elastic::WeightInput& input : files.recipe().inputs) held.push_back(files.load(input));
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begun;
      fastest = std::min(fastest, taken.count());
      least = std::min(least, static_cast<double>(std::clock() - worked) / CLOCKS_PER_SEC);
    }
    std::printf("%.4f %.4f\n", fastest, least);
    return 0;
  } catch (const elastic::Error& error) {
    std::fprintf(stderr, "slice_probe: %s\n", error.what());
    return error.exit_code();
  }
}
