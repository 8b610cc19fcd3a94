#include "elastic_runtime/onnx_backend.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "advised.h"
#include "driver/system.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/sha256.h"
#include "files.h"
#include "ort/model_checks.h"
#include "ort/onnx_api.h"
#include "ort/onnx_memory.h"
#include "request_sizes.h"
#include "state_block.h"

namespace elastic {
namespace {

using onnx::Bytes;
using onnx::Owned;
using onnx::Port;

constexpr std::size_t kTokenInputs = 3;  // input_ids, position, length

std::string output_of(const std::string& state) {
  const std::size_t dot = state.find('.');
  return state.substr(0, dot) + "_out" + state.substr(dot);
}

/// onnxruntime's CPU has kernels for float32 only; loading anything else fails with words that help nobody.
void check_precision(const Bundle& bundle, const BudgetEntry& budget, const OnnxOptions& options) {
  const std::string& precision = bundle.manifest().precision;
  if (options.model || precision == "fp32") return;
  const std::string size = gib(host_bytes(bundle, budget, options.max_context, options.max_batch));
  throw InputError(
      "budget " + in_quotes(budget.name), "a float32 model for onnxruntime's CPU", precision,
      "name its float32 twin (elastic_runtime.ort.twin makes it; it takes " + size + " GiB of memory)");
}

/// Whether there is a twin where one is named.
void check_there(const std::filesystem::path& path, const std::string& budget) {
  std::error_code error;
  if (std::filesystem::exists(path, error)) return;
  const std::string expected = "the twin of budget " + in_quotes(budget);
  if (!error)
    throw InputError(path_text(path), expected, "no such file",
                     "name it (elastic_runtime.ort.twin makes it)");
  throw InputError(path_text(path), expected, error.message(),
                   advice_on(error.default_error_condition().value()));
}

/// A state between two calls: the model reads one buffer and writes the other. In main memory caches have one
/// buffer: TensorScatter then leaves out its copy of the whole cache, and nothing else reads the old one
/// (engines bind them so too).
struct State {
  const Port* port;
  bool in_place;
  StateBlock block;
  Bytes buffers[2];
  std::size_t held[2] = {};  // bytes of each
  Owned<OrtValue> values[2];

  std::size_t bytes() const { return block.height * block.whole; }
  void* current(int side) const { return buffers[in_place ? 0 : side].get(); }
};

/// The kept rows of every state, one after the other; where the states lie or in main memory.
struct SavedOnnxStates : SavedStates {
  std::int64_t bytes() const override { return static_cast<std::int64_t>(size); }

  StateLayout layout;
  std::int64_t rows = 0;
  std::size_t size = 0;
  std::vector<Bytes> parts;
};

class OnnxBackend : public Backend {
 public:
  OnnxBackend(const Bundle& bundle, const BudgetEntry& budget, const OnnxOptions& options)
      : origin_{file_digest(bundle.path() / "manifest.json").sha256, budget.name, "onnxruntime"},
        shape_{budget.widths.vocab_size, options.max_context,
               std::min(options.max_tokens, options.max_context), options.max_batch},
        every_token_(bundle.manifest().logits == "all"),
        memory_(options.card ? onnx::make_card_memory() : onnx::make_host_memory()),
        model_(options.model ? *options.model : bundle.file(budget.model), static_cast<int>(options.threads),
               *memory_) {
    const std::optional<WeightFiles> files =
        budget.weights ? std::optional(bundle.weights(budget)) : std::nullopt;
    const std::string twin = "name the twin of budget " + in_quotes(budget.name) + ", or ";
    advised((options.model ? twin : "") + "export the bundle again", [&] {
      onnx::check_logits(model_, shape_.vocab, every_token_);
      onnx::check_weights(model_, files ? files->recipe() : WeightRecipe{});
    });
    if (files) bind_weights(*files, options.on_bytes);
    bind_states();
    // Of all rows there may be, as was reckoned: where a card has no room for them, opening goes on
    // elsewhere, and a session cannot.
    if (!memory_->is_host()) reset(shape_.max_batch);
  }

  const SessionShape& shape() const override { return shape_; }

  void reset(std::int64_t batch) override {
    for (State& state : states_) {
      std::vector<std::int64_t> shape = state.port->shape;
      const std::size_t size = onnx::element_size(state.port->type);
      state.block = {1, size, 0};
      std::size_t room = size;  // of one buffer; on a card for the rows of any batch
      for (std::size_t i = 0; i < shape.size(); ++i) {
        const bool is_rows = shape[i] < 0 && state.port->symbols[i] == "S";
        const bool is_batch = shape[i] < 0 && !is_rows;
        if (shape[i] < 0) shape[i] = is_rows ? shape_.max_context : batch;
        room *= static_cast<std::size_t>(is_batch && !memory_->is_host() ? shape_.max_batch : shape[i]);
        if (is_rows) state.block = {state.block.whole / size, size, size};
        state.block.whole *= static_cast<std::size_t>(shape[i]);
        if (state.block.row != 0 && !is_rows) state.block.row *= static_cast<std::size_t>(shape[i]);
      }
      for (int side = 0; side < 2; ++side) {
        if (side == 1 && state.in_place) {
          state.values[1] = value_over(state.buffers[0].get(), state.bytes(), shape, state.port->type);
          continue;
        }
        make_room(state, side, room);
        memory_->zero(state.buffers[side].get(), state.bytes());
        state.values[side] = value_over(state.buffers[side].get(), state.bytes(), shape, state.port->type);
      }
    }
    side_ = 0;
  }

  void run(const Call& call, float* logits) override {
    const auto rows = static_cast<std::size_t>(call.batch), tokens = static_cast<std::size_t>(call.tokens);
    const Owned<OrtValue> given[kTokenInputs] = {int64s(call.ids, {call.batch, call.tokens}),
                                                 int64s(call.position, {call.batch}),
                                                 int64s(call.length, {call.batch})};
    std::vector<std::int64_t> shape = {call.batch, shape_.vocab};
    if (every_token_) shape.insert(shape.begin() + 1, call.tokens);
    const auto vocab = static_cast<std::size_t>(shape_.vocab);
    const std::size_t count = rows * (every_token_ ? tokens : 1) * vocab;
    if (every_token_) every_logits_.resize(count);
    float* const target = every_token_ ? every_logits_.data() : logits;
    const Owned<OrtValue> result =
        model_.tensor(target, count * sizeof(float), shape, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    run_model(given, result.get());
    for (std::size_t row = 0; every_token_ && row < rows; ++row) {
      const auto last = static_cast<std::size_t>(std::max<std::int64_t>(call.length[row] - 1, 0));
      std::memcpy(logits + row * vocab, target + (row * tokens + last) * vocab, vocab * sizeof(float));
    }
  }

  Origin origin() const override { return origin_; }

  std::unique_ptr<SavedStates> save(std::int64_t rows, Place place) const override {
    const std::unique_ptr<onnx::Memory> host = onnx::make_host_memory();
    auto saved = std::make_unique<SavedOnnxStates>();
    saved->layout = layout(), saved->rows = rows;
    for (const State& state : states_) {
      const std::size_t kept = state.block.kept(rows), bytes = state.block.height * kept;
      Bytes& part = saved->parts.emplace_back((place == Place::kHost ? *host : *memory_).allocate(bytes));
      memory_->copy(part.get(), kept, state.current(side_), state.block.whole, {state.block.height, kept});
      saved->size += bytes;
    }
    return saved;
  }

  void load(const SavedStates& states) override {
    const auto& saved = saved_by<SavedOnnxStates>(states, layout());
    side_ = 0;
    for (std::size_t n = 0; n < states_.size(); ++n) {
      const StateBlock& block = states_[n].block;
      const std::size_t kept = block.kept(saved.rows);
      void* const to = states_[n].buffers[0].get();
      if (kept != block.whole) memory_->zero(to, states_[n].bytes());
      memory_->copy(to, block.whole, saved.parts[n].get(), kept, {block.height, kept});
    }
  }

  std::int64_t memory() const override {
    std::int64_t sum = weight_bytes_;
    for (const State& state : states_) sum += static_cast<std::int64_t>(state.held[0] + state.held[1]);
    return sum;
  }

 private:
  void make_room(State& state, int side, std::size_t size) {
    if (state.held[side] == size) return;
    state.values[side].reset();
    state.buffers[side].reset();  // makes room for the next one
    state.held[side] = 0;
    state.buffers[side] = memory_->allocate(size);
    state.held[side] = size;
  }

  StateLayout layout() const {
    StateLayout all;
    for (const State& state : states_) all.push_back(state.block);
    return all;
  }

  void bind_weights(const WeightFiles& files, const std::function<void(std::size_t)>& on_bytes) {
    for (const WeightInput& item : files.recipe().inputs) {
      const Port& port = *onnx::input_of(model_, item.name);
      Weight weight = files.load(item, on_bytes);
      if (!memory_->is_host())
        upload(weight);
      else if (reinterpret_cast<std::uintptr_t>(weight.data) % onnx::element_size(port.type) != 0)
        align(weight);
      weight_bytes_ += static_cast<std::int64_t>(weight.size);
      add_input(port.name, value_over(weight.data, weight.size, port.shape, port.type));
      owners_.push_back(std::move(weight.owner));
    }
  }

  Owned<OrtValue> value_over(const void* data, std::size_t bytes, const std::vector<std::int64_t>& shape,
                             ONNXTensorElementDataType type) const {
    return model_.tensor(data, bytes, shape, type, memory_->info());
  }

  /// To the card, so that what was read may go.
  void upload(Weight& weight) {
    std::shared_ptr<void> there = memory_->allocate(weight.size);
    memory_->copy(there.get(), weight.size, weight.data, weight.size, {1, weight.size});
    weight.data = static_cast<const std::byte*>(there.get());
    weight.owner = std::move(there);
  }

  /// A file may lay its tensors at odd offsets; kernels may not read them there.
  static void align(Weight& weight) {
    const std::shared_ptr<std::byte[]> copy(new std::byte[weight.size]);
    std::memcpy(copy.get(), weight.data, weight.size);
    weight.data = copy.get();
    weight.owner = copy;
  }

  static std::size_t elements(const std::vector<std::int64_t>& shape) {
    std::size_t count = 1;
    for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
    return count;
  }

  void add_input(const std::string& name, Owned<OrtValue> value) {
    fixed_names_.push_back(name);
    fixed_.push_back(std::move(value));
  }

  /// Pairs states with their outputs.
  void bind_states() {
    for (const Port& port : model_.inputs()) {
      if (!onnx::is_state(port.name)) continue;
      const bool is_cache = port.name.find("_cache.") != std::string::npos;
      states_.push_back({&port, is_cache && memory_->is_host(), {}, {}, {}, {}});
    }
    for (const char* name : {"input_ids", "position", "length"}) input_names_.push_back(name);
    for (const std::string& name : fixed_names_) input_names_.push_back(name.c_str());
    output_names_.push_back("logits");
    for (const State& state : states_) state_outputs_.push_back(output_of(state.port->name));
    for (std::size_t i = 0; i < states_.size(); ++i) {
      input_names_.push_back(states_[i].port->name.c_str());
      output_names_.push_back(state_outputs_[i].c_str());
    }
  }

  Owned<OrtValue> int64s(const std::int64_t* data, const std::vector<std::int64_t>& shape) const {
    return model_.tensor(data, elements(shape) * sizeof(std::int64_t), shape,
                         ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64);
  }

  void run_model(const Owned<OrtValue>* given, OrtValue* logits) {
    std::vector<const OrtValue*> inputs;
    std::vector<OrtValue*> outputs = {logits};
    for (std::size_t i = 0; i < kTokenInputs; ++i) inputs.push_back(given[i].get());
    for (const auto& value : fixed_) inputs.push_back(value.get());
    for (State& state : states_) {
      inputs.push_back(state.values[side_].get());
      outputs.push_back(state.values[1 - side_].get());
    }
    onnx::check(onnx::api().Run(model_.session(), nullptr, input_names_.data(), inputs.data(), inputs.size(),
                                output_names_.data(), outputs.size(), outputs.data()));
    side_ = 1 - side_;
  }

  Origin origin_;
  SessionShape shape_;
  bool every_token_;
  std::unique_ptr<onnx::Memory> memory_;
  onnx::Model model_;
  std::vector<std::shared_ptr<const void>> owners_;  // what the weights' tensors lie in
  std::vector<std::string> fixed_names_, state_outputs_;
  std::vector<Owned<OrtValue>> fixed_;
  std::vector<State> states_;
  std::vector<const char*> input_names_, output_names_;
  std::vector<float> every_logits_;
  std::int64_t weight_bytes_ = 0;
  int side_ = 0;
};

}  // namespace

bool has_onnx_backend() { return true; }

void check_onnx_card() { onnx::check_card_provider(); }

std::unique_ptr<Backend> make_onnx_backend(const Bundle& bundle, const BudgetEntry& budget,
                                           const OnnxOptions& options) {
  check_sizes(options);
  if (options.model) check_there(*options.model, budget.name);
  check_precision(bundle, budget, options);
  if (options.card)
    check_card_memory(bundle, budget, options.max_context, options.max_batch, *options.card);
  else
    check_host_memory(bundle, budget, options.max_context, options.max_batch, free_ram());
  return std::make_unique<OnnxBackend>(bundle, budget, options);
}

}  // namespace elastic
