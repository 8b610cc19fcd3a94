#include "elastic_runtime/opening.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "driver/driver.h"
#include "driver/system.h"
#include "elastic_runtime/error.h"
#include "request_sizes.h"
#include "tensorrt/tensorrt_build.h"

namespace elastic {
namespace {

using Reasons = std::map<std::string, UnavailableError>;  // why engines do not run here, by file

/// Copies of an engine in another list are known by their file.
const EngineEntry* engine_of(const BudgetEntry& budget, const std::string& file) {
  const auto found = std::find_if(budget.engines.begin(), budget.engines.end(),
                                  [&](const EngineEntry& engine) { return engine.file == file; });
  return found == budget.engines.end() ? nullptr : &*found;
}

class Opening {
 public:
  Opening(const Bundle& bundle, const OpenRequest& request, const Say& say)
      : bundle_(bundle), request_(request), say_(say) {
    check_sizes(request);
  }

  Placement place() {
    if (request_.budget != "auto") (void)bundle_.budget(request_.budget);  // before anything is said
    if (request_.place == RunOn::kCpu) return on_cpu();
    Device device;
    try {
      device = find_device();
    } catch (const InputError& error) {
      return without_card(error);
    }
    const std::set<std::string> classes = served();
    if (classes.count(device.compute_capability) == 0) return without_engine(device, classes);
    try {
      return on_card(device);
    } catch (const UnavailableError& error) {
      return instead_of(device, error);
    }
  }

  /// That onnxruntime computes on the card, and why no engine does.
  void say_where(const Placement& placement) const {
    if (!placement.engine && placement.device) say(on_card_);
  }

  Opened open() {
    while (true) {
      const Placement placement = place();
      if (!placement.engine && !placement.device)
        return {placement, make_onnx_backend(bundle_, *placement.budget, host_options())};
      try {
        if (!placement.engine) {
          auto backend = make_onnx_backend(bundle_, *placement.budget, host_options(&*placement.device));
          say_where(placement);
          return {placement, std::move(backend)};
        }
        return {placement, make_tensorrt_backend(bundle_, *placement.budget, *placement.engine,
                                                 card_options(placement))};
      } catch (const UnavailableError& error) {
        if (!placement.engine) {
          onnx_failed_.emplace(error);
          continue;
        }
        if (!first_failed_) first_failed_.emplace(error);
        failed_.emplace(placement.engine->file, error);
      }
    }
  }

 private:
  void say(const std::string& text) const {
    if (say_) say_(text);
  }

  /// onnxruntime has float32 kernels for all of a model and no others: `make_onnx_backend` refuses a 16-bit
  /// model without its twin.
  bool runs_in_float32() const { return request_.host.model || bundle_.manifest().precision == "fp32"; }

  std::string going_to_cpu() const {
    return std::string(runs_in_float32() ? "running on" : "going on to") +
           " the CPU with onnxruntime, in float32 arithmetic";
  }

  std::set<std::string> served() const {
    std::set<std::string> classes;
    for (const BudgetEntry& budget : bundle_.manifest().budgets) {
      for (const EngineEntry& engine : budget.engines)
        classes.insert(engine.compute_capabilities.begin(), engine.compute_capabilities.end());
    }
    return classes;
  }

  std::vector<BudgetEntry> wanted() const {
    std::vector<BudgetEntry> forms;
    for (const BudgetEntry* form : bundle_.forms(request_.budget)) forms.push_back(*form);
    return forms;
  }

  /// There is no card, or the driver does not show one.
  Placement without_card(const InputError& error) {
    if (request_.place == RunOn::kGpu)
      throw UnavailableError("device gpu", error.expected, error.found,
                             "look at the driver and CUDA_VISIBLE_DEVICES, or run on the CPU (--device cpu)");
    // No driver is no news; one that shows no card was updated without a restart, or worse.
    say("no NVIDIA card here: " + going_to_cpu() + (load_nvml() ? std::string("; ") + error.what() : ""));
    return on_cpu();
  }

  /// No engine is for a card of this class.
  Placement without_engine(const Device& device, const std::set<std::string>& classes) {
    std::string known;
    for (const std::string& name : classes) known += (known.empty() ? "" : ", ") + name;
    const std::string where = device.name + " has compute capability " + device.compute_capability;
    return by_onnx(device, where + ", the engines are for " + known, "");
  }

  /// Of those for this card none runs.
  Placement instead_of(const Device& device, const UnavailableError& reason) {
    return by_onnx(device, device.name, std::string("; no engine runs here: ") + reason.what());
  }

  /// The card under onnxruntime, else the CPU.
  /// @param who   the card, and why none of the engines is for it
  /// @param engines why none of those for it runs; empty where there is none
  Placement by_onnx(const Device& device, const std::string& who, const std::string& engines) {
    try {
      const Placement placement = on_card_by_onnx(device);
      on_card_ = "running on " + device.name + " with onnxruntime, in float32 arithmetic" + engines;
      return placement;
    } catch (const UnavailableError& error) {
      if (request_.place == RunOn::kGpu)
        throw UnavailableError(error.subject, error.expected, error.found + engines, error.todo);
      say(who + ": " + going_to_cpu() + "; on the card it expected " + error.expected + ", found " +
          error.found + engines);
      return on_cpu();
    }
  }

  /// Throws UnavailableError: onnxruntime does not compute there, or not this model, or it does not fit.
  Placement on_card_by_onnx(const Device& device) const {
    if (onnx_failed_) throw UnavailableError(*onnx_failed_);
    check_onnx_card();
    if (!runs_in_float32())
      throw UnavailableError("onnxruntime on a card", "a float32 model", bundle_.manifest().precision,
                             "name its float32 twin (elastic_runtime.ort.twin makes it)");
    Device card = device;
    card.free_bytes = std::min(request_.vram.value_or(device.free_bytes), device.free_bytes);
    const OnnxOptions options = host_options(&card);
    const BudgetEntry& budget =
        choose_on_card(bundle_, options.max_context, options.max_batch, card, request_.budget);
    check_card_memory(bundle_, budget, options.max_context, options.max_batch, card);
    return {&budget, nullptr, card};
  }

  Request request_for(const Device& device) const {
    const std::int64_t vram = std::min(request_.vram.value_or(device.free_bytes), device.free_bytes);
    return {std::max<std::int64_t>(vram, 1), request_.context, request_.batch, device.compute_capability};
  }

  /// The budgets with the engines alone that can run on that card; why not the others of its class.
  std::vector<BudgetEntry> runnable(const std::vector<BudgetEntry>& whole, const Device& device,
                                    Reasons& refused) const {
    std::vector<BudgetEntry> able = whole;
    for (BudgetEntry& budget : able) {
      const auto leaves = [&](const EngineEntry& engine) {
        const auto& known = engine.compute_capabilities;
        if (failed_.count(engine.file) != 0) return true;
        if (std::find(known.begin(), known.end(), device.compute_capability) == known.end()) return true;
        try {
          (void)check_runs(engine, device, request_.card);
          return false;
        } catch (const UnavailableError& error) {
          refused.emplace(engine.file, error);
          return true;
        }
      };
      budget.engines.erase(std::remove_if(budget.engines.begin(), budget.engines.end(), leaves),
                           budget.engines.end());
    }
    return able;
  }

  /// The best engine that runs and fits. Throws UnavailableError: none does, for the reason that the first
  /// one that was loaded or else the best one does not.
  Placement on_card(const Device& device) const {
    const std::vector<BudgetEntry> whole = wanted();
    Reasons refused = failed_;
    const std::vector<BudgetEntry> able = runnable(whole, device, refused);
    const Request request = request_for(device);
    const Choice best = choose(whole, request), choice = choose(able, request);
    const Reckoning *first = best.chosen(), *chosen = choice.chosen();
    if (!chosen) fail(able, best, choice, refused, device);
    if (first && refused.count(first->engine->file) != 0)
      say("warning: " + printable(chosen->engine->file) + " in place of " + printable(first->engine->file) +
          ": " + refused.at(first->engine->file).what());
    const BudgetEntry& budget = bundle_.budget(chosen->budget->name);
    return {&budget, engine_of(budget, chosen->engine->file), device};
  }

  [[noreturn]] void fail(const std::vector<BudgetEntry>& able, const Choice& best, const Choice& choice,
                         const Reasons& refused, const Device& device) const {
    const bool none_runs = std::all_of(able.begin(), able.end(),
                                       [](const BudgetEntry& budget) { return budget.engines.empty(); });
    for (const Reckoning& reckoning : best.reckonings) {
      if (!none_runs || !reckoning.engine || refused.count(reckoning.engine->file) == 0) continue;
      if (first_failed_) throw UnavailableError(*first_failed_);
      throw UnavailableError(refused.at(reckoning.engine->file));
    }
    if (request_.budget != "auto" && able.size() == 1)  // says more about one budget
      throw UnavailableError("budget " + in_quotes(request_.budget), "an engine that fits " + device.name,
                             choice.reckonings.front().refusal, "see:\n" + choice.explain());
    throw UnavailableError("bundle", "a budget that fits", "none", "see:\n" + choice.explain());
  }

  /// The budget for the CPU, where it fits. Throws UnavailableError about one that does not, naming one that
  /// does.
  Placement on_cpu() const {
    const BudgetEntry& budget = pick_for_cpu();
    const OnnxOptions host = host_options();
    check_host_memory(bundle_, budget, host.max_context, host.max_batch, free_ram());
    return {&budget, nullptr, std::nullopt};
  }

  const BudgetEntry& pick_for_cpu() const {
    const OnnxOptions host = host_options();
    const std::vector<const BudgetEntry*> forms = bundle_.forms(request_.budget);
    if (request_.budget != "auto" && forms.size() == 1) return *forms.front();
    if (!request_.vram) return choose_on_host(bundle_, host.max_context, host.max_batch, request_.budget);
    const Request request{*request_.vram, request_.context, request_.batch, {}};
    const Choice choice = bundle_.choose(request, request_.budget);
    if (const Reckoning* chosen = choice.chosen()) return *chosen->budget;
    throw BuildError("bundle", "a budget that fits", "none", "see:\n" + choice.explain());
  }

  TensorRtOptions card_options(const Placement& placement) const {
    TensorRtOptions card = request_.card;
    card.max_batch = request_.batch;
    card.warn = say_;
    if (!card.runtime_cache)
      card.runtime_cache = default_runtime_cache(bundle_, *placement.engine, placement.device->name);
    return card;
  }

  /// @param card where onnxruntime is to compute; null: on the CPU
  OnnxOptions host_options(const Device* card = nullptr) const {
    OnnxOptions host = request_.host;
    host.card = card ? std::optional(*card) : std::nullopt;
    host.max_batch = request_.batch;
    if (request_.context) host.max_context = *request_.context;
    return host;
  }

  const Bundle& bundle_;
  const OpenRequest& request_;
  const Say& say_;
  Reasons failed_;
  std::optional<UnavailableError> first_failed_, onnx_failed_;
  std::string on_card_;  // what is said where onnxruntime has it
};

}  // namespace

Placement place_of(const Bundle& bundle, const OpenRequest& request, const Say& say) {
  Opening opening(bundle, request, say);
  const Placement placement = opening.place();
  opening.say_where(placement);
  return placement;
}

Opened open_backend(const Bundle& bundle, const OpenRequest& request, const Say& say) {
  return Opening(bundle, request, say).open();
}

}  // namespace elastic
