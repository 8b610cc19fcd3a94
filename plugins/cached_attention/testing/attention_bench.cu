// Times the attention on a GPU beside the copy bandwidth measured in the same run: one JSON object a line.
//   attention_bench [layers] [batch tokens position [kernel]]
// The 12B shape (40 query heads, 8 key and value heads of 128) in bfloat16, random data; without the last words the
// rows of kRows. Each launch works on another layer's caches, so that hits in the L2 cannot flatter; a CUDA graph of
// all layers leaves out launch cost, as an engine's decode does. Times are medians over repetitions. "of_copy": of the
// copy bandwidth, for the caches' rows that a call must read; "tflops": 4*T*seen*H*D of the part below the diagonal.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "../elastic_attention.h"

namespace {

constexpr int kRepetitions = 30, kWarmUp = 3;
constexpr int kHeads = 40, kKeyValueHeads = 8, kHeadDim = 128;

struct Row {
  int batch, tokens, position;
};
// Decode at short and long contexts, one sequence and many; the first call of a prompt, a middle one, a whole one.
constexpr Row kRows[] = {
    {1, 1, 127},  {1, 1, 1023},  {1, 1, 8191},    {1, 1, 16383},   {1, 1, 32767},    {1, 1, 131070},
    {8, 1, 8191}, {64, 1, 1023}, {64, 1, 8191},   {1, 4, 8191},    {1, 16, 8191},    {1, 64, 8191},
    {1, 1024, 0}, {1, 256, 7936}, {1, 1024, 7168}, {1, 1024, 31744}, {1, 8192, 0}, {1, 1024, 130047}};

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

// Values between -2 and 2 in bfloat16: a sign, exponents of one and below, random bits.
__global__ void fill(uint16_t* to, size_t count, uint32_t seed) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint32_t bits = static_cast<uint32_t>(i) * 2654435761u ^ seed;
    bits = (bits ^ bits >> 15) * 2246822519u;
    bits ^= bits >> 13;
    to[i] = static_cast<uint16_t>((bits & 0x807f) | 0x3f00 | (bits >> 9 & 0x80));
  }
}

// Device memory, freed with its owner.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) { check(cudaMalloc(&memory_, bytes), "cudaMalloc"); }
  ~Buffer() { (void)cudaFree(memory_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  Buffer& randomize(uint32_t seed) {
    fill<<<1024, 256>>>(static_cast<uint16_t*>(memory_), bytes_ / sizeof(uint16_t), seed);
    check(cudaGetLastError(), "fill");
    return *this;
  }
  void* get() const { return memory_; }

 private:
  void* memory_ = nullptr;
  size_t bytes_;
};

// Median microseconds of `work` on the stream.
double median_us(cudaStream_t stream, const std::function<void()>& work) {
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
    if (i >= kWarmUp) times.push_back(ms * 1e3f);
  }
  check(cudaEventDestroy(begin), "event");
  check(cudaEventDestroy(end), "event");
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// Bytes a microsecond that a plain copy moves, read and write counted.
double copy_bandwidth(cudaStream_t stream) {
  constexpr size_t kBytes = size_t{1} << 30;
  const Buffer from(kBytes), to(kBytes);
  return 2.0 * kBytes / median_us(stream, [&] {
           check(cudaMemcpyAsync(to.get(), from.get(), kBytes, cudaMemcpyDeviceToDevice, stream), "copy");
         });
}

void time_row(cudaStream_t stream, const Row& row, int layers, int kernel, double bandwidth) {
  const ElasticAttentionShape shape = {row.batch,      row.tokens, kHeads,
                                       kKeyValueHeads, kHeadDim,   row.position + row.tokens};
  ElasticAttentionRequirements needed;
  check(elastic_attention_requirements(&shape, &needed));
  const size_t tokens = static_cast<size_t>(row.batch) * row.tokens, element = sizeof(uint16_t);
  const size_t cache = static_cast<size_t>(row.batch) * kKeyValueHeads * shape.context * kHeadDim * element;
  const size_t queries = tokens * kHeads * kHeadDim * element, news = tokens * kKeyValueHeads * kHeadDim * element;
  Buffer keys(cache * layers), values(cache * layers), query(queries), key(news), value(news), y(queries);
  Buffer workspace(needed.workspace_bytes), position(sizeof(int64_t) * row.batch);
  uint32_t seed = 1;
  for (Buffer* tensor : {&keys, &values, &query, &key, &value}) tensor->randomize(seed++);
  const std::vector<int64_t> positions(row.batch, row.position);
  check(cudaMemcpy(position.get(), positions.data(), positions.size() * sizeof(int64_t), cudaMemcpyHostToDevice),
        "position");
  ElasticAttentionArgs args = {};
  args.shape = shape;
  args.dtype = ELASTIC_BFLOAT16;
  args.scale = 0.08838834764831845f;
  args.query = query.get();
  args.key = key.get();
  args.value = value.get();
  args.position = static_cast<int64_t*>(position.get());
  args.y = y.get();
  args.workspace = static_cast<float*>(workspace.get());
  const auto run = [&] {
    for (int layer = 0; layer < layers; ++layer) {
      args.key_cache = static_cast<char*>(keys.get()) + cache * layer;
      args.value_cache = static_cast<char*>(values.get()) + cache * layer;
      check(elastic_attention_enqueue(&args, kernel, stream));
    }
  };
  check(cudaDeviceSynchronize(), "fill");
  run();
  check(cudaStreamSynchronize(stream), "kernel");
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  run();
  check(cudaStreamEndCapture(stream, &graph), "capture");
  check(cudaGraphInstantiate(&executable, graph, 0), "graph");
  const double us = median_us(stream, [&] { check(cudaGraphLaunch(executable, stream), "graph"); }) / layers;
  check(cudaGraphExecDestroy(executable), "graph");
  check(cudaGraphDestroy(graph), "graph");
  const double seen = row.position + (row.tokens + 1) / 2.0, least = 2.0 * cache + 2.0 * queries;
  const double flops = 4.0 * tokens * seen * kHeads * kHeadDim;
  std::printf("{\"batch\": %d, \"tokens\": %d, \"position\": %d, \"kernel\": %d, \"layers\": %d, \"us\": %.2f, "
              "\"of_copy\": %.4f, \"tflops\": %.2f}\n",
              row.batch, row.tokens, row.position, kernel, layers, us, least / us / bandwidth, flops / us * 1e-6);
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** words) {
  const auto number = [&](int i) { return std::atoi(words[i]); };
  const int layers = count > 1 ? std::max(1, number(1)) : 6;
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "device");
  cudaStream_t stream;
  check(cudaStreamCreate(&stream), "stream");
  const double bandwidth = copy_bandwidth(stream);
  std::printf("{\"device\": \"%s\", \"multiprocessors\": %d, \"copy_gb_s\": %.1f}\n", device.name,
              device.multiProcessorCount, bandwidth * 1e-3);
  if (count > 4) {
    time_row(stream, {number(2), number(3), number(4)}, layers, count > 5 ? number(5) : 0, bandwidth);
    return 0;
  }
  for (const Row& row : kRows) time_row(stream, row, layers, ELASTIC_ATTENTION_AUTO, bandwidth);
  std::printf("{\"copy_gb_s_after\": %.1f}\n", copy_bandwidth(stream) * 1e-3);
  return 0;
}
