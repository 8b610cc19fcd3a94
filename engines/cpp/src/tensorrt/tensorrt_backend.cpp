#include "elastic_runtime/tensorrt_backend.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "driver/cuda_memory.h"
#include "driver/staging.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/sha256.h"
#include "files.h"
#include "state_block.h"
#include "tensorrt/call_size.h"
#include "tensorrt/device_states.h"
#include "tensorrt/tensorrt_engine.h"

namespace elastic {
namespace {

using nvinfer1::Dims;
using nvinfer1::IExecutionContext;

class TensorRtBackend : public Backend {
 public:
  TensorRtBackend(const Bundle& bundle, const BudgetEntry& budget, const EngineEntry& entry,
                  const PluginSource& plugins, const TensorRtOptions& options)
      : origin_{file_digest(bundle.path() / "manifest.json").sha256, budget.name, "tensorrt-rtx"},
        shape_{budget.widths.vocab_size, entry.max_context, entry.max_tokens, options.max_batch},
        every_token_(bundle.manifest().logits == "all"),
        use_graph_(options.cuda_graph),
        warn_(options.warn),
        loaded_(bundle, entry, plugins, options),
        stream_(cuda::make_stream()) {
    make_token_buffers();
    make_states(entry);
    if (budget.weights) load_weights(bundle.weights(budget), options.on_bytes);
    bind(loaded_.prefill(), 0);
    for (int side = 0; side < 2; ++side) bind(loaded_.decode(side), side);
    cuda::check(cudaStreamSynchronize(stream_.get()), "loading the weights");
  }

  const SessionShape& shape() const override { return shape_; }
  std::int64_t memory() const override { return bytes_ + loaded_.activation(); }

  std::int64_t call_size(std::int64_t wanted, std::int64_t most) const override {
    return engine_call_size(wanted, most, shape_.max_tokens);
  }

  void reset(std::int64_t batch) override {
    for (DeviceState& state : states_) {
      for (const cuda::Device& buffer : state.buffers) {
        if (buffer) zero(buffer.get(), state.row_bytes * static_cast<std::size_t>(shape_.max_batch));
      }
    }
    cuda::check(cudaStreamSynchronize(stream_.get()), "clearing the states");
    if (batch != batch_) {
      for (int side = 0; side < 2; ++side)
        set_shapes(loaded_.decode(side), batch, 1), graphs_[side].reset(), warm_[side] = false;
    }
    batch_ = batch;
    side_ = 0;
  }

  Origin origin() const override { return origin_; }

  std::unique_ptr<SavedStates> save(std::int64_t rows, Place place) const override {
    auto saved = std::make_unique<SavedDeviceStates>();
    saved->layout = layout(), saved->rows = rows;
    for (const DeviceState& state : states_) {
      const std::size_t kept = state.block.kept(rows), height = blocks(state), bytes = kept * height;
      saved->size += bytes;
      const void* from = state.read(side_);
      if (place == Place::kDevice) {
        saved->device.push_back(cuda::allocate(bytes, "a snapshot"));
        copy(saved->device.back().get(), kept, from, state.block.whole, kept, height,
             cudaMemcpyDeviceToDevice);
      } else {
        saved->host.emplace_back(bytes);
        copy(saved->host.back().data(), kept, from, state.block.whole, kept, height, cudaMemcpyDeviceToHost);
      }
    }
    cuda::check(cudaStreamSynchronize(stream_.get()), "saving the states");
    return saved;
  }

  void load(const SavedStates& states) override {
    const auto& saved = saved_by<SavedDeviceStates>(states, layout());
    side_ = 0;
    for (std::size_t n = 0; n < states_.size(); ++n) {
      const DeviceState& state = states_[n];
      const std::size_t kept = state.block.kept(saved.rows), height = blocks(state);
      zero(state.read(0), state.row_bytes * static_cast<std::size_t>(shape_.max_batch));
      const bool here = !saved.device.empty();
      const void* from = here ? saved.device[n].get() : saved.host[n].data();
      copy(state.read(0), state.block.whole, from, kept, kept, height,
           here ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice);
    }
    cuda::check(cudaStreamSynchronize(stream_.get()), "restoring the states");
  }

  void run(const Call& call, float* logits) override {
    const auto rows = static_cast<std::size_t>(call.batch), tokens = static_cast<std::size_t>(call.tokens);
    upload(ids_, call.ids, rows * tokens);
    upload(position_, call.position, rows);
    upload(length_, call.length, rows);
    if (call.tokens == 1) {
      step();
    } else {
      bind_states(loaded_.prefill(), side_);
      set_shapes(loaded_.prefill(), call.batch, call.tokens);
      loaded_.enqueue(loaded_.prefill(), stream_.get());
    }
    download(call, logits);
    side_ = 1 - side_;
  }

 private:
  /// int64 values on their way to the device.
  struct TokenBuffer {
    const char* name;
    cuda::Device device;
    cuda::Pinned<std::int64_t> host;
  };

  StateLayout layout() const {
    StateLayout all;
    for (const DeviceState& state : states_)
      all.push_back({blocks(state), state.block.whole, state.block.row});
    return all;
  }

  /// Blocks of a state of all sequences under way.
  std::size_t blocks(const DeviceState& state) const {
    return state.block.height * static_cast<std::size_t>(batch_);
  }

  void copy(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
            std::size_t height, cudaMemcpyKind kind) const {
    if (width == 0) return;
    const auto pitches = height == 1 ? std::pair(width, width) : std::pair(to_pitch, from_pitch);
    cuda::check(
        cudaMemcpy2DAsync(to, pitches.first, from, pitches.second, width, height, kind, stream_.get()),
        "copying the states");
  }

  void zero(void* memory, std::size_t bytes) {
    cuda::check(cudaMemsetAsync(memory, 0, bytes, stream_.get()), "clearing memory");
  }

  cuda::Device allocate(std::size_t bytes, const char* what) {
    bytes_ += static_cast<std::int64_t>(bytes);
    return cuda::allocate(bytes, what);
  }

  void make_token_buffers() {
    const auto rows = static_cast<std::size_t>(shape_.max_batch),
               tokens = static_cast<std::size_t>(shape_.max_tokens);
    for (TokenBuffer* buffer : {&ids_, &position_, &length_}) {
      const std::size_t count = buffer == &ids_ ? rows * tokens : rows;
      buffer->device = allocate(count * sizeof(std::int64_t), "token buffers");
      buffer->host = cuda::pin<std::int64_t>(count);
    }
    logits_count_ = rows * (every_token_ ? tokens : 1) * static_cast<std::size_t>(shape_.vocab);
    logits_ = allocate(logits_count_ * sizeof(float), "logits");
    host_logits_ = cuda::pin<float>(rows * static_cast<std::size_t>(shape_.vocab));
  }

  void make_states(const EngineEntry& entry) {
    const auto& engine = loaded_.engine();
    for (const OutputPort& port : entry.outputs) {
      if (!port.input) continue;
      DeviceState state{*port.input, port.name, 0, *port.alias == "must", {}, {}};
      const Dims dims = engine.getTensorShape(state.input.c_str());
      const std::size_t element = element_size(engine.getTensorDataType(state.input.c_str()));
      state.row_bytes = element;
      state.block = {1, state.row_bytes, 0};
      for (int i = 1; i < dims.nbDims; ++i) {
        const auto size = static_cast<std::size_t>(std::max<std::int64_t>(dims.d[i], 0));
        const auto axis = static_cast<std::size_t>(i);
        const bool is_rows = axis < port.shape.size() && port.shape[axis].symbol == "S";
        if (is_rows) state.block = {state.row_bytes / element, element, element};
        state.block.whole *= size;
        if (state.block.row != 0 && !is_rows) state.block.row *= size;
        state.row_bytes *= size;
      }
      if (dims.nbDims < 2 || state.row_bytes == 0) loaded_.fail("a state " + state.input + " of known size");
      const std::size_t bytes = state.row_bytes * static_cast<std::size_t>(shape_.max_batch);
      for (int side = 0; side < (state.in_place ? 1 : 2); ++side)
        state.buffers[side] = allocate(bytes, "states and caches");
      states_.push_back(std::move(state));
    }
  }

  /// From the files through page-locked buffers: every run is one strided copy.
  void load_weights(const WeightFiles& files, const std::function<void(std::size_t)>& on_bytes) {
    loaded_.check_weights(files.recipe());
    cuda::Staging staging(stream_.get());
    for (const WeightInput& input : files.recipe().inputs) {
      cuda::Device memory = allocate(static_cast<std::size_t>(input.nbytes()), "weights");
      for (const WeightFiles::Source& part : files.sources(input)) {
        staging.copy(part.read(), memory.get(), part.blocks, on_bytes);
      }
      weights_[input.name] = std::move(memory);
    }
    cuda::check(cudaStreamSynchronize(stream_.get()), "loading the weights");  // before the buffers go
  }

  void set_address(IExecutionContext& context, const std::string& name, void* memory) {
    if (!context.setTensorAddress(name.c_str(), memory)) loaded_.fail("a tensor " + name);
  }

  void bind_states(IExecutionContext& context, int side) {
    for (const DeviceState& state : states_) {
      set_address(context, state.input, state.read(side));
      set_address(context, state.output, state.write(side));
    }
  }

  /// Every tensor of the engine gets its memory; one that nobody knows is an error.
  void bind(IExecutionContext& context, int side) {
    std::map<std::string, void*> known = {{"logits", logits_.get()}};
    for (const TokenBuffer* buffer : {&ids_, &position_, &length_})
      known[buffer->name] = buffer->device.get();
    for (const auto& [name, memory] : weights_) known[name] = memory.get();
    for (const DeviceState& state : states_)
      known[state.input] = state.read(side), known[state.output] = state.write(side);
    const auto& engine = loaded_.engine();
    for (int i = 0; i < engine.getNbIOTensors(); ++i) {
      const std::string name = engine.getIOTensorName(i);
      const auto found = known.find(name);
      if (found == known.end())
        throw InputError("engine input " + show(name), "a weight of weights.json or a state", "neither",
                         "export the bundle again");
      set_address(context, name, found->second);
    }
  }

  /// B and T of this call in the shapes of all inputs that have them.
  void set_shapes(IExecutionContext& context, std::int64_t batch, std::int64_t tokens) {
    const auto set = [&](const std::string& name, std::int64_t axis1) {
      Dims dims = loaded_.engine().getTensorShape(name.c_str());
      dims.d[0] = batch;
      if (axis1 > 0) dims.d[1] = axis1;
      if (!context.setInputShape(name.c_str(), dims)) loaded_.fail("an input " + name + " of this shape");
    };
    set(ids_.name, tokens);
    set(position_.name, 0);
    set(length_.name, 0);
    for (const DeviceState& state : states_) set(state.input, 0);
  }

  void upload(TokenBuffer& buffer, const std::int64_t* values, std::size_t count) {
    std::memcpy(buffer.host.get(), values, count * sizeof(std::int64_t));
    cuda::check(cudaMemcpyAsync(buffer.device.get(), buffer.host.get(), count * sizeof(std::int64_t),
                                cudaMemcpyHostToDevice, stream_.get()),
                "copying tokens to the GPU");
  }

  /// One decode step: as it is the first time, then captured, then replayed.
  void step() {
    IExecutionContext& context = loaded_.decode(side_);
    if (graphs_[side_])
      return cuda::check(cudaGraphLaunch(graphs_[side_].get(), stream_.get()), "a decode step");
    if (use_graph_ && !asked_) ask_whether_recordable(context);
    if (!use_graph_ || loaded_.replays_itself() || !warm_[side_]) {
      warm_[side_] = true;
      return loaded_.enqueue(context, stream_.get());
    }
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t made = nullptr;
    cuda::check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal),
                "capturing a decode step");
    const bool enqueued = context.enqueueV3(stream_.get());
    cudaError_t ended = cudaStreamEndCapture(stream_.get(), &graph);
    if (enqueued && ended == cudaSuccess) ended = cudaGraphInstantiate(&made, graph, 0);
    if (enqueued && ended == cudaSuccess) graphs_[side_].reset(made);
    if (graph) (void)cudaGraphDestroy(graph);
    if (graphs_[side_])
      return cuda::check(cudaGraphLaunch(graphs_[side_].get(), stream_.get()), "a decode step");
    (void)cudaGetLastError();
    without_graphs(ended == cudaSuccess ? "the engine cannot be recorded" : cudaGetErrorString(ended));
    loaded_.enqueue(context, stream_.get());
  }

  /// Asked once, when shapes and addresses are set, on which the answer may depend.
  void ask_whether_recordable(IExecutionContext& context) {
    asked_ = true;
    if (!loaded_.recordable(context, stream_.get())) without_graphs("the engine cannot be recorded");
  }

  /// An engine that cannot be recorded runs all the same.
  void without_graphs(const std::string& reason) {
    use_graph_ = false;
    if (warn_) warn_("decode steps run without CUDA graphs, which is slower: " + reason);
  }

  void download(const Call& call, float* logits) {
    const auto vocab = static_cast<std::size_t>(shape_.vocab);
    const auto row_floats = every_token_ ? static_cast<std::size_t>(call.tokens) * vocab : vocab;
    for (std::int64_t row = 0; row < call.batch; ++row) {
      const std::int64_t last = every_token_ ? std::max<std::int64_t>(call.length[row] - 1, 0) : 0;
      const auto from = static_cast<std::size_t>(row) * row_floats + static_cast<std::size_t>(last) * vocab;
      cuda::check(cudaMemcpyAsync(host_logits_.get() + static_cast<std::size_t>(row) * vocab,
                                  static_cast<const float*>(logits_.get()) + from, vocab * sizeof(float),
                                  cudaMemcpyDeviceToHost, stream_.get()),
                  "copying logits from the GPU");
    }
    cuda::check(cudaStreamSynchronize(stream_.get()), "running the model");
    std::memcpy(logits, host_logits_.get(), static_cast<std::size_t>(call.batch) * vocab * sizeof(float));
  }

  Origin origin_;
  SessionShape shape_;
  bool every_token_, use_graph_, asked_ = false;
  std::function<void(const std::string&)> warn_;
  trt::Engine loaded_;
  cuda::Stream stream_;
  TokenBuffer ids_{"input_ids", {}, {}}, position_{"position", {}, {}}, length_{"length", {}, {}};
  cuda::Device logits_;
  cuda::Pinned<float> host_logits_;
  std::size_t logits_count_ = 0;
  std::vector<DeviceState> states_;
  std::map<std::string, cuda::Device> weights_;
  cuda::Graph graphs_[2];
  bool warm_[2] = {false, false};
  std::int64_t bytes_ = 0, batch_ = 0;
  int side_ = 0;
};

}  // namespace

std::unique_ptr<Backend> make_tensorrt_backend(const Bundle& bundle, const BudgetEntry& budget,
                                               const EngineEntry& engine, const TensorRtOptions& options) {
  const PluginSource plugins = trt::check_engine(budget, engine, options);
  TensorRtOptions heard = options;
  heard.warn = trt::one_at_a_time(options.warn);
  const std::string warning = untested(engine);
  if (heard.warn && !warning.empty()) heard.warn(warning);
  return std::make_unique<TensorRtBackend>(bundle, budget, engine, plugins, heard);
}

}  // namespace elastic
