#include "options.h"

#include <charconv>
#include <cstdlib>
#include <functional>
#include <map>

#include "elastic_runtime/error.h"
#include "elastic_runtime/fit.h"

namespace app {

using elastic::InputError;

const char* const kHelp =
    R"(elastic_generate BUNDLE [options]: continue a prompt with a bundle of elastic-export

  --budget NAME|auto     the sub-model; auto is the largest that fits the GPU, without one the memory (auto)
  --vram SIZE            free GPU memory, such as 12GiB, instead of what the device says
  --context N            tokens that must be possible: the smallest engine that has them; without it the
                         largest that fits the memory (on the CPU 4096)
  --prompt TEXT          text, for byte-level vocabularies (BPE)
  --ids 1,2,3            token ids, for every vocabulary
  --max-new N            tokens to make (256)
  --temperature T        0 is greedy (0)
  --top-k K  --top-p P   sample from the K likeliest (0: all), from the likeliest that make up P
  --seed N               the same seed gives the same tokens
  --stop TEXT            end before this text; may be repeated
  --stop-id N            end at this token; may be repeated, instead of the bundle's end-of-text tokens
  --no-eos               do not end at the bundle's end-of-text tokens
  --print-ids            print token ids instead of text
  --explain              print what every budget needs, and stop
  --weights-digest       print the sha256 of every weight of the budget as it is cut, and stop
  --check                read every file and compare its digest first
  --device auto|cpu|gpu  where to run (auto: the GPU where there is one, without falling back to the CPU)
  --external-weights DIR where the parent's shards are, for a bundle that only names them
  --model FILE           another ONNX file of the same interface, such as a float32 twin (CPU)
  --max-tokens N         tokens of one call (256; CPU)
  --threads N            onnxruntime's threads (its own choice; CPU)
  --plugins DIR          folder of plugin libraries, such as that of elastic-plugins; without one native
                         engines serve (GPU)
  --trust-engine         run the plugin library inside the engine: you know who made the bundle (GPU)
  --runtime-cache FILE   keep compiled kernels here (the user's cache, as elastic-run does; GPU)
)";

namespace {

template <typename T>
T number(const std::string& text, const std::string& name, const char* expected) {
  T value{};
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc() || result.ptr != end) throw InputError(name, expected, elastic::show(text));
  return value;
}

double real(const std::string& text, const std::string& name) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') throw InputError(name, "a number", elastic::show(text));
  return value;
}

std::int64_t count(const std::string& text, const std::string& name) {
  const auto value = number<std::int64_t>(text, name, "a whole number from 1");
  if (value < 1) throw InputError(name, "a whole number from 1", text);
  return value;
}

std::vector<std::int64_t> id_list(const std::string& text) {
  std::vector<std::int64_t> ids;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    ids.push_back(number<std::int64_t>(text.substr(at, end - at), "--ids", "token ids divided by commas"));
    at = end + 1;
  }
  return ids;
}

using Set = std::function<void(Options&, const std::string& name, const std::string& value)>;

const std::map<std::string, Set>& valued() {
  static const std::map<std::string, Set> all = {
      {"--budget", [](Options& o, auto&, auto& v) { o.budget = v; }},
      {"--device", [](Options& o, auto&, auto& v) { o.device = v; }},
      {"--external-weights", [](Options& o, auto&, auto& v) { o.external = v; }},
      {"--model", [](Options& o, auto&, auto& v) { o.model = v; }},
      {"--plugins", [](Options& o, auto&, auto& v) { o.plugins = v; }},
      {"--prompt", [](Options& o, auto&, auto& v) { o.prompt = v; }},
      {"--runtime-cache", [](Options& o, auto&, auto& v) { o.cache = v; }},
      {"--ids", [](Options& o, auto&, auto& v) { o.ids = id_list(v); }},
      {"--vram", [](Options& o, auto& n, auto& v) { o.vram = elastic::parse_bytes(v, n); }},
      {"--context", [](Options& o, auto& n, auto& v) { o.context = count(v, n); }},
      {"--max-new", [](Options& o, auto& n, auto& v) { o.generate.max_new = count(v, n); }},
      {"--max-tokens", [](Options& o, auto& n, auto& v) { o.max_tokens = count(v, n); }},
      {"--threads", [](Options& o, auto& n, auto& v) { o.threads = number<int>(v, n, "a whole number"); }},
      {"--temperature", [](Options& o, auto& n, auto& v) { o.generate.sampling.temperature = real(v, n); }},
      {"--top-k",
       [](Options& o, auto& n, auto& v) {
         o.generate.sampling.top_k = number<std::int64_t>(v, n, "a whole number from 0");
       }},
      {"--top-p", [](Options& o, auto& n, auto& v) { o.generate.sampling.top_p = real(v, n); }},
      {"--seed",
       [](Options& o, auto& n, auto& v) {
         o.generate.sampling.seed = number<std::uint64_t>(v, n, "a whole number from 0");
       }},
      {"--stop", [](Options& o, auto&, auto& v) { o.generate.stop_texts.push_back(v); }},
      {"--stop-id", [](Options& o, auto& n,
                       auto& v) { o.generate.stop_ids.push_back(number<std::int64_t>(v, n, "a token id")); }},
  };
  return all;
}

bool* flag(Options& options, const std::string& name) {
  const std::map<std::string, bool Options::*> all = {{"--explain", &Options::explain},
                                                      {"--weights-digest", &Options::weights_digest},
                                                      {"--trust-engine", &Options::trust_engine},
                                                      {"--check", &Options::full_check},
                                                      {"--print-ids", &Options::print_ids},
                                                      {"--help", &Options::help},
                                                      {"-h", &Options::help}};
  const auto found = all.find(name);
  return found == all.end() ? nullptr : &(options.*found->second);
}

void check(const Options& options) {
  if (options.help) return;
  if (options.bundle.empty())
    throw InputError("elastic_generate", "the folder of a bundle", "none", "see --help");
  if (options.device != "auto" && options.device != "cpu" && options.device != "gpu") {
    throw InputError("--device", "auto, cpu or gpu", elastic::show(options.device));
  }
  if (options.explain || options.weights_digest) return;
  if (options.prompt.has_value() == options.ids.has_value()) {
    throw InputError("prompt", "one of --prompt and --ids", options.prompt ? "both" : "none");
  }
}

}  // namespace

Options parse(const std::vector<std::string>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    const auto found = valued().find(name);
    if (found != valued().end()) {
      if (++i == arguments.size()) throw InputError(name, "a value behind it", "the end of the command");
      found->second(options, name, arguments[i]);
    } else if (bool* set = flag(options, name)) {
      *set = true;
    } else if (name == "--no-eos") {
      options.stop_at_eos = false;
    } else if (name.rfind("--", 0) == 0 || !options.bundle.empty()) {
      throw InputError(elastic::show(name), "a known option", "another one", "see --help");
    } else {
      options.bundle = name;
    }
  }
  check(options);
  return options;
}

}  // namespace app
