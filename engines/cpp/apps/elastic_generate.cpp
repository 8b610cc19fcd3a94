// elastic_generate: a bundle, a prompt, tokens on standard output. Errors go to standard error, exit 2 or 1;
// Ctrl-C ends with 130, a reader that is gone with 141.
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "console.h"
#include "elastic_runtime/bundle.h"
#include "elastic_runtime/device.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/opening.h"
#include "elastic_runtime/sha256.h"
#include "options.h"

namespace {

using namespace elastic;
namespace fs = std::filesystem;

void say(const std::string& text) { std::cerr << "elastic_generate: " << text << "\n"; }

/// Between two pieces of work that take long: Ctrl-C ends the program here.
void hear(std::size_t) { app::poll(); }

OpenRequest request_of(const app::Options& options) {
  OpenRequest request;
  request.budget = options.budget;
  request.place = options.device == "cpu"   ? RunOn::kCpu
                  : options.device == "gpu" ? RunOn::kGpu
                                            : RunOn::kAuto;
  request.vram = options.vram;
  request.context = options.context;
  if (options.plugins) request.card.plugins = fs::u8path(*options.plugins);
  if (options.cache) request.card.runtime_cache = fs::u8path(*options.cache);
  request.card.trust_engine = options.trust_engine;
  if (options.model) request.host.model = fs::u8path(*options.model);
  request.host.max_tokens = options.max_tokens;
  request.host.threads = options.threads;
  request.card.on_bytes = request.host.on_bytes = hear;
  return request;
}

std::string explain(const Bundle& bundle, const app::Options& options) {
  if (options.vram) return bundle.choose({*options.vram, options.context, 1, {}}).explain();
  if (options.device == "cpu")
    throw InputError("--explain", "a GPU, or --vram with the memory to reckon with", "neither",
                     "name it, as in --vram 12GiB");
  const Device device = find_device();
  return bundle.choose({device.free_bytes, options.context, 1, device.compute_capability}).explain();
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
  if (settings.stop_ids.empty() && !options.ignore_eos)
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
  if (options.help) return app::print(app::help());
  if (options.version) return app::print(app::version());
  std::optional<fs::path> external;
  if (options.external) external = fs::u8path(*options.external);
  const Bundle bundle = Bundle::open(fs::u8path(options.bundle),
                                     options.full_check ? Check::kDigests : Check::kSizes, external, hear);
  if (options.explain) return app::print(explain(bundle, options) + "\n");
  const OpenRequest request = request_of(options);
  if (options.weights_digest && options.budget != "auto")
    return print_digests(bundle, bundle.budget(options.budget));
  if (options.weights_digest) return print_digests(bundle, *place_of(bundle, request, say).budget);
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_of(bundle, options);
  const std::vector<std::int64_t> prompt =
      options.ids ? *options.ids : tokenizer->encode(*options.prompt, true);
  Session session(open_backend(bundle, request, say).backend);
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
