#include "options.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>

#include "elastic_runtime/error.h"
#include "elastic_runtime/fit.h"

namespace app {

using elastic::InputError;

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

std::string standard_input() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
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

/// An option: its name, what its value is called (empty: it takes none), what it says in --help (a line break
/// begins a line of its own), and what it does.
struct Option {
  std::string name, value, help;
  Set set;
};

/// In the order of --help.
const std::vector<Option>& options() {
  static const std::vector<Option> all = {
      {"--budget", "NAME|auto",
       "the sub-model, or one form of it (6b.int8); auto is the largest that fits the GPU, without one the "
       "memory (auto)",
       [](Options& o, auto&, auto& v) { o.budget = v; }},
      {"--vram", "SIZE", "free GPU memory, such as 12GiB, instead of what the device says",
       [](Options& o, auto& n, auto& v) { o.vram = elastic::parse_bytes(v, n); }},
      {"--context", "N",
       "tokens that must be possible: the smallest engine that has them; without it the\n"
       "largest that fits the memory (on the CPU 4096)",
       [](Options& o, auto& n, auto& v) { o.context = count(v, n); }},
      {"--prompt", "TEXT", "text, for byte-level vocabularies (BPE); - reads standard input",
       [](Options& o, auto&, auto& v) { o.prompt = v == "-" ? standard_input() : v; }},
      {"--ids", "1,2,3", "token ids, for every vocabulary",
       [](Options& o, auto&, auto& v) { o.ids = id_list(v); }},
      {"--max-new", "N", "tokens to make (256)",
       [](Options& o, auto& n, auto& v) { o.generate.max_new = count(v, n); }},
      {"--temperature", "T", "0 is greedy (0)",
       [](Options& o, auto& n, auto& v) { o.generate.sampling.temperature = real(v, n); }},
      {"--top-k", "K", "sample from the K likeliest (0: all)",
       [](Options& o, auto& n, auto& v) {
         o.generate.sampling.top_k = number<std::int64_t>(v, n, "a whole number from 0");
       }},
      {"--top-p", "P", "sample from the likeliest that make up P (1)",
       [](Options& o, auto& n, auto& v) { o.generate.sampling.top_p = real(v, n); }},
      {"--seed", "N", "the same seed gives the same tokens (0)",
       [](Options& o, auto& n, auto& v) {
         o.generate.sampling.seed = number<std::uint64_t>(v, n, "a whole number from 0");
       }},
      {"--stop", "TEXT", "end before this text; may be repeated",
       [](Options& o, auto&, auto& v) { o.generate.stop_texts.push_back(v); }},
      {"--stop-id", "N", "end at this token; may be repeated, instead of the bundle's end-of-text tokens",
       [](Options& o, auto& n, auto& v) {
         o.generate.stop_ids.push_back(number<std::int64_t>(v, n, "a token id"));
       }},
      {"--ignore-eos", "", "do not end at the bundle's end-of-text tokens",
       [](Options& o, auto&, auto&) { o.ignore_eos = true; }},
      {"--print-ids", "", "print token ids instead of text",
       [](Options& o, auto&, auto&) { o.print_ids = true; }},
      {"--explain", "", "print what every budget needs, and stop",
       [](Options& o, auto&, auto&) { o.explain = true; }},
      {"--weights-digest", "", "print the sha256 of every weight of the budget as it is cut, and stop",
       [](Options& o, auto&, auto&) { o.weights_digest = true; }},
      {"--check", "", "read every file and compare its digest first",
       [](Options& o, auto&, auto&) { o.full_check = true; }},
      {"--device", "auto|cpu|gpu",
       "where to run (auto: an engine on the GPU, where none runs the CPU, and says why)",
       [](Options& o, auto&, auto& v) { o.device = v; }},
      {"--weights-folder", "DIR", "where the parent's shards are, for a bundle that only names them",
       [](Options& o, auto&, auto& v) { o.external = v; }},
      {"--model", "FILE", "another ONNX file of the same interface, such as a float32 twin (CPU)",
       [](Options& o, auto&, auto& v) { o.model = v; }},
      {"--max-tokens", "N", "tokens of one call (256; CPU)",
       [](Options& o, auto& n, auto& v) { o.max_tokens = count(v, n); }},
      {"--threads", "N", "onnxruntime's threads (its own choice; CPU)",
       [](Options& o, auto& n, auto& v) { o.threads = number<std::int64_t>(v, n, "a whole number from 0"); }},
      {"--plugins", "DIR", "folder of plugin libraries, such as that of elastic-plugins (GPU)",
       [](Options& o, auto&, auto& v) { o.plugins = v; }},
      {"--trust-engine", "", "run the plugin library inside the engine: you know who made the bundle (GPU)",
       [](Options& o, auto&, auto&) { o.trust_engine = true; }},
      {"--runtime-cache", "FILE", "keep compiled kernels here (the user's cache, as elastic-run does; GPU)",
       [](Options& o, auto&, auto& v) { o.cache = v; }},
      {"--help", "", "print this, and stop", [](Options& o, auto&, auto&) { o.help = true; }},
      {"--version", "", "print the version, and stop", [](Options& o, auto&, auto&) { o.version = true; }},
  };
  return all;
}

/// Names that options had, and the short one of --help.
std::string current_name(const std::string& name) {
  static const std::map<std::string, std::string> old = {
      {"--no-eos", "--ignore-eos"}, {"--external-weights", "--weights-folder"}, {"-h", "--help"}};
  const auto found = old.find(name);
  return found == old.end() ? name : found->second;
}

const Option* find_option(const std::string& name) {
  const auto found =
      std::find_if(options().begin(), options().end(), [&](const Option& o) { return o.name == name; });
  return found == options().end() ? nullptr : &*found;
}

void check(const Options& options) {
  if (options.help || options.version) return;
  if (options.bundle.empty())
    throw InputError("elastic_generate", "the folder of a bundle", "none", "see --help");
  if (options.device != "auto" && options.device != "cpu" && options.device != "gpu") {
    throw InputError("--device", "auto, cpu or gpu", elastic::show(options.device));
  }
  if (options.explain || options.weights_digest) return;
  if (options.prompt.has_value() == options.ids.has_value()) {
    throw InputError("prompt", "one of --prompt and --ids", options.prompt ? "both" : "none");
  }
  // What these refuse, they refuse before a model is loaded for nothing.
  const elastic::Sampler sampler(options.generate.sampling);
  const elastic::StopText stops(options.generate.stop_texts);
}

}  // namespace

std::string help() {
  constexpr std::size_t kColumn = 25;
  std::string text =
      "elastic_generate BUNDLE [options]: continue a prompt with a bundle of elastic-export\n\n";
  for (const Option& option : options()) {
    std::string line = "  " + option.name + (option.value.empty() ? "" : " ") + option.value;
    line.resize(std::max(line.size() + 1, kColumn), ' ');
    for (const char sign : option.help) {
      line += sign;
      if (sign == '\n') line.append(kColumn, ' ');
    }
    text += line + "\n";
  }
  return text + "\nA value follows its option, or an equals sign: --max-new 20, --max-new=20.\n";
}

std::string version() { return "elastic_generate, version " ELASTIC_VERSION "\n"; }

Options parse(const std::vector<std::string>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& given = arguments[i];
    const bool named = given.rfind('-', 0) == 0;
    const std::size_t equals = named ? given.find('=') : std::string::npos;
    const std::string name = given.substr(0, equals);
    const Option* option = named ? find_option(current_name(name)) : nullptr;
    if (option && option->value.empty()) {
      if (equals != std::string::npos) {
        throw InputError(name, "no value", elastic::show(given.substr(equals + 1)), "leave it out");
      }
      option->set(options, name, "");
    } else if (option && equals != std::string::npos) {
      option->set(options, name, given.substr(equals + 1));
    } else if (option) {
      if (++i == arguments.size()) throw InputError(name, "a value behind it", "the end of the command");
      option->set(options, name, arguments[i]);
    } else if (named) {
      throw InputError(elastic::show(name), "a known option", "another one", "see --help");
    } else if (!options.bundle.empty()) {
      throw InputError(elastic::show(given), "one bundle", "a second one", "see --help");
    } else {
      options.bundle = given;
    }
  }
  check(options);
  return options;
}

}  // namespace app
