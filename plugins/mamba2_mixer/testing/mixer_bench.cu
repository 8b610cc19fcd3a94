// Times the mixer on a GPU beside the copy bandwidth measured in the same run: one JSON object a line.
//   mixer_bench [layers]
// The 12B shape in bfloat16. Each launch works on another layer's tensors, so that a small cache hit cannot
// flatter; a CUDA graph of all layers leaves out launch cost, as an engine's decode does. Times are medians
// over repetitions.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../elastic_mamba2.h"

namespace {

constexpr int kRepetitions = 50, kWarmUp = 5;

[[noreturn]] void fail(const std::string& text) {
  std::fprintf(stderr, "%s\n", text.c_str());
  std::exit(1);
}
void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail(std::string(what) + ": " + cudaGetErrorString(error));
}
void check(int32_t status) {
  if (status != ELASTIC_OK) fail(elastic_last_error());
}

// Zeroed device memory, handed out in pieces of 256-byte alignment.
class Arena {
 public:
  explicit Arena(size_t bytes) : size_(bytes) {
    check(cudaMalloc(&base_, bytes), "cudaMalloc");
    check(cudaMemset(base_, 0, bytes), "cudaMemset");
  }
  ~Arena() { (void)cudaFree(base_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  template <typename T>
  T* take(size_t count) {
    T* piece = reinterpret_cast<T*>(static_cast<char*>(base_) + used_);
    used_ += (count * sizeof(T) + 255) / 256 * 256;
    if (used_ > size_) fail("mixer_bench: an arena is too small");
    return piece;
  }

 private:
  void* base_ = nullptr;
  size_t size_, used_ = 0;
};

using Bf16 = uint16_t;

struct Sizes {
  size_t rows, inner, channels, width, state;
  explicit Sizes(const ElasticMamba2Shape& s)
      : rows(static_cast<size_t>(s.batch) * s.tokens),
        inner(static_cast<size_t>(s.heads) * s.head_dim),
        channels(inner + 2ull * s.groups * s.state_size),
        width(inner + channels + s.heads),
        state(s.batch * inner * s.state_size) {}
};

// One layer's tensors. `length` holds T everywhere: every token is real.
struct Layer {
  Layer(const ElasticMamba2Shape& shape, const ElasticMamba2Requirements& needed)
      : sizes(shape), arena(bytes(shape, needed)) {
    args.shape = shape;
    args.activation = args.head_param = ELASTIC_BFLOAT16;
    args.epsilon = 1e-5f;
    args.time_step_max = 1e30f;
    args.projected = arena.take<Bf16>(sizes.rows * sizes.width);
    args.conv_weight = arena.take<Bf16>(sizes.channels * shape.conv_width);
    args.conv_bias = arena.take<Bf16>(sizes.channels);
    args.a_log = arena.take<Bf16>(shape.heads);
    args.d = arena.take<Bf16>(shape.heads);
    args.dt_bias = arena.take<Bf16>(shape.heads);
    args.norm_weight = arena.take<Bf16>(sizes.inner);
    args.conv_state = arena.take<Bf16>(conv_state(shape));
    args.conv_state_out = arena.take<Bf16>(conv_state(shape));
    args.ssm_state_out = arena.take<float>(sizes.state);
    args.ssm_state = args.ssm_state_out;
    args.y = arena.take<Bf16>(sizes.rows * sizes.inner);
    args.workspace = arena.take<float>(needed.workspace_bytes / sizeof(float) + 1);
    args.counters = arena.take<uint32_t>(needed.counters + 1);
    const std::vector<int64_t> lengths(shape.batch, shape.tokens);
    auto* length = arena.take<int64_t>(shape.batch);
    check(cudaMemcpy(length, lengths.data(), lengths.size() * sizeof(int64_t), cudaMemcpyHostToDevice), "length");
    args.length = length;
  }

  size_t conv_state(const ElasticMamba2Shape& s) const { return s.batch * (s.conv_width - 1) * sizes.channels; }
  size_t bytes(const ElasticMamba2Shape& s, const ElasticMamba2Requirements& needed) const {
    const size_t narrow = sizes.rows * (sizes.width + sizes.inner) + (s.conv_width + 2) * sizes.channels +
                          2 * conv_state(s) + sizes.inner + 3 * s.heads;
    return 2 * narrow + 4 * sizes.state + needed.workspace_bytes + 4ull * needed.counters + 8ull * s.batch + (64 << 10);
  }

  Sizes sizes;
  Arena arena;
  ElasticMamba2Args args = {};
};

// Bytes that a call must at least move: the state in and out, activations in and out, both convolution
// states.
double least_bytes(const Layer& layer) {
  const ElasticMamba2Shape& s = layer.args.shape;
  return 8.0 * layer.sizes.state + 2.0 * layer.sizes.rows * (layer.sizes.width + layer.sizes.inner) +
         4.0 * layer.conv_state(s) + 2.0 * (s.conv_width + 1) * layer.sizes.channels;
}

// Median milliseconds of `work` on the stream.
double median_ms(cudaStream_t stream, const std::function<void()>& work) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "event");
  check(cudaEventCreate(&end), "event");
  std::vector<float> times;
  for (int i = 0; i < kWarmUp + kRepetitions; ++i) {
    check(cudaEventRecord(begin, stream), "event");
    work();
    check(cudaEventRecord(end, stream), "event");
    check(cudaEventSynchronize(end), "kernel");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "event");
    if (i >= kWarmUp) times.push_back(ms);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// Bytes per second that a plain copy moves, read and write counted.
double copy_bandwidth(cudaStream_t stream) {
  constexpr size_t kBytes = size_t{1} << 30;
  Arena from(kBytes), to(kBytes);
  void *source = from.take<char>(kBytes), *target = to.take<char>(kBytes);
  const double ms = median_ms(
      stream, [&] { check(cudaMemcpyAsync(target, source, kBytes, cudaMemcpyDeviceToDevice, stream), "copy"); });
  return 2.0 * kBytes / (ms * 1e-3);
}

void time_shape(cudaStream_t stream, int batch, int tokens, int layers, double bandwidth) {
  const ElasticMamba2Shape shape = {batch, tokens, 128, 80, 8, 128, 4};
  ElasticMamba2Requirements needed;
  check(elastic_mamba2_requirements(&shape, &needed));
  std::vector<std::unique_ptr<Layer>> all;
  for (int i = 0; i < layers; ++i) all.push_back(std::make_unique<Layer>(shape, needed));
  const auto run = [&] {
    for (const auto& layer : all) check(elastic_mamba2_enqueue(&layer->args, ELASTIC_MAMBA2_AUTO, stream));
  };
  run();
  check(cudaStreamSynchronize(stream), "kernel");
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  run();
  check(cudaStreamEndCapture(stream, &graph), "capture");
  check(cudaGraphInstantiate(&executable, graph, 0), "graph");
  const double us = median_ms(stream, [&] { check(cudaGraphLaunch(executable, stream), "graph"); }) * 1e3 / layers;
  const double moved = least_bytes(*all[0]) / (us * 1e-6);
  std::printf("{\"batch\": %d, \"tokens\": %d, \"layers\": %d, \"us\": %.3f, \"gb_s\": %.1f, \"of_copy\": %.4f}\n",
              batch, tokens, layers, us, moved * 1e-9, moved / bandwidth);
  check(cudaGraphExecDestroy(executable), "graph");
  check(cudaGraphDestroy(graph), "graph");
}

}  // namespace

int main(int count, char** words) {
  const int wanted = count > 1 ? std::max(1, std::atoi(words[1])) : 28;
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "device");
  cudaStream_t stream;
  check(cudaStreamCreate(&stream), "stream");
  const double before = copy_bandwidth(stream);
  std::printf("{\"device\": \"%s\", \"multiprocessors\": %d, \"copy_gb_s\": %.1f}\n", device.name,
              device.multiProcessorCount, before * 1e-9);
  const size_t usable = device.totalGlobalMem / 2, state = size_t{128} * 80 * 128 * 4;
  for (int batch : {1, 2, 4, 8, 16, 64}) {
    const int fit = static_cast<int>(std::max<size_t>(1, usable / (state * batch * 5 / 4)));
    time_shape(stream, batch, 1, std::min(wanted, fit), before);
  }
  for (int tokens : {64, 256, 2048, 8192}) time_shape(stream, 1, tokens, 2, before);
  std::printf("{\"copy_gb_s_after\": %.1f}\n", copy_bandwidth(stream) * 1e-9);
  return 0;
}
