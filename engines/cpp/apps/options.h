// The command line of elastic_generate. What means the same as in elastic-run has the same name there.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "elastic_runtime/generate.h"

namespace app {

struct Options {
  std::string bundle, budget = "auto", device = "auto";
  std::optional<std::string> external, model, prompt, cache, plugins;
  std::optional<std::vector<std::int64_t>> ids;
  std::optional<std::int64_t> vram, context;
  std::int64_t max_tokens = 256;
  std::int64_t threads = 0;
  bool explain = false, weights_digest = false, full_check = false, print_ids = false, help = false,
       version = false, ignore_eos = false, trust_engine = false;
  elastic::GenerateOptions generate;
};

/// Throws elastic::InputError about an argument: what can be said without a bundle is said here.
Options parse(const std::vector<std::string>& arguments);

/// What --help prints.
std::string help();

/// What --version prints.
std::string version();

}  // namespace app
