// Loads every weight of FOLDER/weights.json several times and says how long the fastest took, for
// tests/bench/slice_weights.py.
#include <chrono>
#include <cstdio>
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
    double fastest = std::numeric_limits<double>::infinity();
    for (int round = 0; round < 6; ++round) {
      const auto begun = std::chrono::steady_clock::now();
      const elastic::WeightFiles files(recipe, folder);
      std::vector<elastic::Weight> held;
      for (const elastic::WeightInput& input : files.recipe().inputs) held.push_back(files.load(input));
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begun;
      if (taken.count() < fastest) fastest = taken.count();
    }
    std::printf("load %.2f s for %.2f GiB\n", fastest,
                static_cast<double>(recipe.nbytes()) / static_cast<double>(1 << 30));
    return 0;
  } catch (const elastic::Error& error) {
    std::fprintf(stderr, "slice_probe: %s\n", error.what());
    return error.exit_code();
  }
}
