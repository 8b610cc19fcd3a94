// elastic_generate: a bundle, a prompt, tokens on standard output. Errors go to standard error, exit 2 or 1.
#include <csignal>
#include <iostream>
#include <string>
#include <vector>

#include "elastic_runtime/bundle.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/onnx_backend.h"
#include "elastic_runtime/sha256.h"
#include "elastic_runtime/tensorrt_backend.h"
#include "options.h"

namespace {

using namespace elastic;
namespace fs = std::filesystem;

constexpr std::int64_t kHostContext = 4096;
constexpr int kInterrupted = 130;

volatile std::sig_atomic_t interrupted = 0;

/// What was decided before anything was loaded.
struct Plan {
  const BudgetEntry* budget = nullptr;
  const EngineEntry* engine = nullptr;  // null: the CPU
};

Request request_of(const app::Options& options, const std::optional<Device>& device) {
  if (!options.vram && !device) {
    throw InputError("--budget auto", "a GPU, or --vram with the memory to reckon with", "neither",
                     "name a budget or the memory");
  }
  Request request{options.vram ? *options.vram : device->free_bytes, options.context.value_or(1), 1, {}};
  if (device) request.compute_capability = device->compute_capability;
  return request;
}

Plan plan(const Bundle& bundle, const app::Options& options, const std::optional<Device>& device) {
  const bool on_gpu = options.device == "gpu" || (options.device == "auto" && device);
  if (options.budget != "auto" && !on_gpu) return {&bundle.budget(options.budget), nullptr};
  const Choice choice = bundle.choose(request_of(options, device));
  if (options.budget == "auto") {
    const Reckoning* chosen = choice.chosen();
    if (!chosen)
      throw InputError("--budget auto", "a budget that fits", "none:\n" + choice.explain(),
                       "ask for less context");
    return {chosen->budget, on_gpu ? chosen->engine : nullptr};
  }
  for (const Reckoning& reckoning : choice.reckonings) {
    if (reckoning.budget != &bundle.budget(options.budget)) continue;
    if (!reckoning.fits())
      throw InputError("budget " + repr(options.budget), "one that fits", reckoning.refusal);
    return {reckoning.budget, reckoning.engine};
  }
  return {};
}

Session open_session(const Bundle& bundle, const Plan& plan, const app::Options& options) {
  if (plan.engine) {
    TensorRtOptions device;
    if (options.cache) device.runtime_cache = fs::u8path(*options.cache);
    return Session(make_tensorrt_backend(bundle, *plan.budget, *plan.engine, device));
  }
  OnnxOptions host;
  host.max_context = options.context.value_or(kHostContext);
  host.max_tokens = options.max_tokens;
  host.threads = options.threads;
  if (options.model) host.model = fs::u8path(*options.model);
  return Session(make_onnx_backend(bundle, *plan.budget, host));
}

void print_digests(const Bundle& bundle, const BudgetEntry& budget) {
  const WeightFiles files = bundle.weights(budget);
  for (const WeightInput& input : files.recipe().inputs) {
    const Weight weight = files.load(input);
    std::cout << sha256({reinterpret_cast<const char*>(weight.data), weight.size}) << "  " << input.name
              << "\n";
  }
}

/// The end-of-text tokens of generation_config.json, where the bundle has one.
std::vector<std::int64_t> eos_ids(const Bundle& bundle) {
  const fs::path path = bundle.file("generation_config.json");
  if (!fs::is_regular_file(path)) return {};
  const Value file = read_json(path);
  const Value* eos = file.find("eos_token_id");
  std::vector<std::int64_t> ids;
  if (!eos) return ids;
  if (const auto* id = eos->get<std::int64_t>()) ids.push_back(*id);
  if (const auto* list = eos->get<Array>()) {
    for (const Value& item : *list) {
      if (const auto* id = item.get<std::int64_t>()) ids.push_back(*id);
    }
  }
  return ids;
}

int run(Session& session, const Bundle& bundle, const app::Options& options) {
  GenerateOptions settings = options.generate;
  if (settings.stop_ids.empty() && options.stop_at_eos) settings.stop_ids = eos_ids(bundle);
  std::optional<ByteTokenizer> tokenizer;
  if (options.prompt || !settings.stop_texts.empty() || !options.print_ids) {
    try {
      tokenizer = ByteTokenizer::read(bundle.file("tokenizer.json"));
    } catch (const InputError&) {
      if (options.prompt || !settings.stop_texts.empty()) throw;  // else ids are printed
    }
  }
  const bool as_ids = options.print_ids || !tokenizer;
  const auto on_token = [&](std::size_t, std::int64_t id, std::string_view text) {
    if (as_ids) {
      std::cout << id << "\n";
    } else {
      std::cout << text;
    }
    std::cout.flush();
    return interrupted == 0 && std::cout.good();  // a closed pipe ends the generation
  };
  const std::vector<std::int64_t> prompt = options.ids ? *options.ids : tokenizer->encode(*options.prompt);
  generate(session, {prompt}, settings, tokenizer ? &*tokenizer : nullptr, on_token);
  if (!as_ids && std::cout.good()) std::cout << "\n";
  return interrupted != 0 ? kInterrupted : 0;
}

int main_of(const std::vector<std::string>& arguments) {
  const app::Options options = app::parse(arguments);
  if (options.help) {
    std::cout << app::kHelp;
    return 0;
  }
  std::optional<fs::path> external;
  if (options.external) external = fs::u8path(*options.external);
  const Bundle bundle = Bundle::open(fs::u8path(options.bundle),
                                     options.full_check ? Check::kDigests : Check::kSizes, external);
  const std::optional<Device> device = options.device == "cpu" ? std::nullopt : current_device();
  if (options.explain) {
    std::cout << bundle.choose(request_of(options, device)).explain() << "\n";
    return 0;
  }
  const Plan chosen = plan(bundle, options, device);
  if (options.weights_digest) {
    print_digests(bundle, *chosen.budget);
    return 0;
  }
  Session session = open_session(bundle, chosen, options);
  return run(session, bundle, options);
}

}  // namespace

int main(int count, char** arguments) {
  std::signal(SIGINT, [](int) { interrupted = 1; });
#ifdef SIGPIPE
  std::signal(SIGPIPE, SIG_IGN);  // noticed where it is written
#endif
  try {
    return main_of(std::vector<std::string>(arguments + 1, arguments + count));
  } catch (const Error& error) {
    std::cerr << "elastic_generate: " << error.what() << "\n";
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "elastic_generate: expected the machine to take part, found " << error.what() << ".\n";
    return 1;
  }
}
