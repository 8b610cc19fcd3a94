// elastic_generate: a bundle, a prompt, tokens on standard output. Errors go to standard error, exit 2 or 1;
// Ctrl-C ends with 130, a reader that is gone with 141.
#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "console.h"
#include "elastic_runtime/bundle.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/onnx_backend.h"
#include "elastic_runtime/plugin_library.h"
#include "elastic_runtime/sha256.h"
#include "elastic_runtime/tensorrt_backend.h"
#include "options.h"

namespace {

using namespace elastic;
namespace fs = std::filesystem;

constexpr std::int64_t kHostContext = 4096;

/// What was decided before anything was loaded.
struct Plan {
  const BudgetEntry* budget = nullptr;
  const EngineEntry* engine = nullptr;  // null: the CPU
};

void say(const std::string& text) { std::cerr << "elastic_generate: " << text << "\n"; }

/// Between two pieces of work that take long: Ctrl-C ends the program here.
void hear(std::size_t) { app::poll(); }

std::int64_t host_context(const app::Options& options) { return options.context.value_or(kHostContext); }

Request request_of(const app::Options& options, const std::optional<Device>& device) {
  if (!options.vram && !device) {
    throw InputError("--explain", "a GPU, or --vram with the memory to reckon with", "neither",
                     "name it, as in --vram 12GiB");
  }
  Request request{options.vram ? *options.vram : device->free_bytes, options.context, 1, {}};
  if (device) request.compute_capability = device->compute_capability;
  return request;
}

Plan plan(const Bundle& bundle, const app::Options& options, const std::optional<Device>& device) {
  const bool on_gpu = options.device == "gpu" || (options.device == "auto" && device);
  const bool is_auto = options.budget == "auto";
  if (on_gpu && !device) throw UnavailableError("--device gpu", "an NVIDIA GPU with a driver", "none");
  if (!is_auto && !on_gpu) return {&bundle.budget(options.budget), nullptr};
  if (is_auto && !on_gpu && !options.vram) return {&choose_on_host(bundle, host_context(options)), nullptr};
  std::vector<BudgetEntry> budgets = bundle.manifest().budgets;
  if (!is_auto) budgets = {bundle.budget(options.budget)};
  const Request request = request_of(options, device);
  if (on_gpu) {
    std::optional<fs::path> plugins;
    if (options.plugins) plugins = fs::u8path(*options.plugins);
    leave_out_without_plugins(budgets, request, plugins, options.trust_engine, say);
  }
  const Choice choice = choose(budgets, request);
  const Reckoning* chosen = choice.chosen();
  if (!chosen && is_auto)
    throw BuildError("--budget auto", "a budget that fits", "none", "see:\n" + choice.explain());
  if (!chosen) {
    throw UnavailableError("budget " + in_quotes(options.budget), "one that fits " + device->name,
                           choice.reckonings.front().refusal);
  }
  const BudgetEntry& budget = bundle.budget(chosen->budget->name);
  if (!on_gpu) return {&budget, nullptr};
  const auto engine = std::find_if(budget.engines.begin(), budget.engines.end(),
                                   [&](const EngineEntry& e) { return e.file == chosen->engine->file; });
  return {&budget, &*engine};
}

Session open_session(const Bundle& bundle, const Plan& plan, const app::Options& options,
                     const std::optional<Device>& device) {
  if (plan.engine) {
    TensorRtOptions card;
    if (options.plugins) card.plugins = fs::u8path(*options.plugins);
    card.trust_engine = options.trust_engine;
    if (options.cache) card.runtime_cache = fs::u8path(*options.cache);
    if (!options.cache && device)
      card.runtime_cache = default_runtime_cache(bundle, *plan.engine, device->name);
    card.on_bytes = hear;
    card.warn = say;
    return Session(make_tensorrt_backend(bundle, *plan.budget, *plan.engine, card));
  }
  OnnxOptions host;
  host.max_context = host_context(options);
  host.max_tokens = options.max_tokens;
  host.threads = options.threads;
  host.on_bytes = hear;
  if (options.model) host.model = fs::u8path(*options.model);
  return Session(make_onnx_backend(bundle, *plan.budget, host));
}

void print_digests(const Bundle& bundle, const BudgetEntry& budget) {
  const WeightFiles files = bundle.weights(budget);
  for (const WeightInput& input : files.recipe().inputs) {
    const Weight weight = files.load(input, hear);
    app::print(sha256({reinterpret_cast<const char*>(weight.data), weight.size}) + "  " +
               printable(input.name) + "\n");
  }
}

/// The bundle's tokenizer, where text goes in or may come out; null: ids come out.
std::unique_ptr<Tokenizer> tokenizer_of(const Bundle& bundle, const app::Options& options) {
  const bool needed = options.prompt || !options.generate.stop_texts.empty();
  if (!needed && options.print_ids) return nullptr;
  try {
    return read_tokenizer(bundle.path());
  } catch (const Error& error) {
    if (needed) throw;
    say(std::string("prints token ids: ") + error.what());
    return nullptr;
  }
}

void run(Session& session, const Bundle& bundle, const app::Options& options, const Tokenizer* tokenizer,
         const std::vector<std::int64_t>& prompt) {
  GenerateOptions settings = options.generate;
  if (settings.stop_ids.empty() && options.stop_at_eos)
    settings.stop_ids = eos_ids(bundle.path(), session.shape().vocab);
  const bool as_ids = options.print_ids || !tokenizer;
  const auto on_token = [&](std::size_t, std::int64_t id, std::string_view text) {
    app::print(as_ids ? std::to_string(id) + "\n" : std::string(text));
    app::poll();
    return true;
  };
  session.before_call(app::poll);
  generate(session, {prompt}, settings, tokenizer, on_token);
  if (!as_ids) app::print("\n");
}

void main_of(const std::vector<std::string>& arguments) {
  const app::Options options = app::parse(arguments);
  if (options.help) return app::print(app::kHelp);
  std::optional<fs::path> external;
  if (options.external) external = fs::u8path(*options.external);
  const Bundle bundle = Bundle::open(fs::u8path(options.bundle),
                                     options.full_check ? Check::kDigests : Check::kSizes, external, hear);
  const std::optional<Device> device = options.device == "cpu" ? std::nullopt : current_device();
  if (options.explain) return app::print(bundle.choose(request_of(options, device)).explain() + "\n");
  const Plan chosen = plan(bundle, options, device);
  if (options.weights_digest) return print_digests(bundle, *chosen.budget);
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_of(bundle, options);
  const std::vector<std::int64_t> prompt =
      options.ids ? *options.ids : tokenizer->encode(*options.prompt, true);
  Session session = open_session(bundle, chosen, options, device);
  run(session, bundle, options, tokenizer.get(), prompt);
}

}  // namespace

int main(int count, char** arguments) {
  app::prepare_console();
  try {
    main_of(app::arguments(count, arguments));
    return 0;
  } catch (const app::Ended& ended) {
    return ended.exit_code;
  } catch (const Error& error) {
    say(error.what());
    return error.exit_code();
  } catch (const std::exception& error) {
    say(std::string("expected the machine to take part, found ") + error.what() + ".");
    return 1;
  }
}
