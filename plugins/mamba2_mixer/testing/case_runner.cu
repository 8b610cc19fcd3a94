// Runs recorded cases through the C interface: on a GPU, or on the host shim, from the same source.
//   case_runner CASE OUTPUT
//   case_runner [--own-stream] LIST
// CASE: lines "key value...", an empty line, then the tensors as raw bytes (cases.py writes it). OUTPUT: y of
// each call, then both states after the last. All memory a kernel must write is poisoned with NaN first. Exit
// 0; 1 with a text. LIST: a line CASE and a line OUTPUT by turns; of each case it says "case: ok", or why not, and goes
// on. --own-stream: a stream that does not wait for the default one, as the runtimes have it.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../common/device.cuh"
#include "../elastic_mamba2.h"
#if defined(ELASTIC_THROUGH_PLUGIN)  // the same cases through the TensorRT plugin's enqueue
#include "plugin_call.h"
#endif

namespace {

[[noreturn]] void fail(const std::string& text) { throw std::runtime_error(text); }
void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail(std::string(what) + ": " + cudaGetErrorString(error));
}
void check(int32_t status) {
  if (status != ELASTIC_OK) fail(elastic_last_error());
}

class Header {
 public:
  explicit Header(std::istream& in) {
    for (std::string line; std::getline(in, line) && !line.empty();) {
      const auto space = line.find(' ');
      values_[line.substr(0, space)] = line.substr(space + 1);
    }
  }
  const std::string& text(const std::string& key) const {
    const auto found = values_.find(key);
    if (found == values_.end()) fail("case: expected the key " + key + ", found none");
    return found->second;
  }
  int number(const std::string& key) const { return std::atoi(text(key).c_str()); }
  float real(const std::string& key) const { return std::strtof(text(key).c_str(), nullptr); }
  std::vector<int> numbers(const std::string& key) const {
    std::istringstream in(text(key));
    std::vector<int> out;
    for (int value; in >> value;) out.push_back(value);
    return out;
  }

 private:
  std::map<std::string, std::string> values_;
};

constexpr int kPoison = 0xff;

class DeviceBytes {
 public:
  explicit DeviceBytes(std::size_t size) : size_(size) {
    check(cudaMalloc(&data_, size), "cudaMalloc");
    fill(kPoison);
  }
  ~DeviceBytes() { (void)cudaFree(data_); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  void fill(int byte) { check(cudaMemset(data_, byte, size_), "cudaMemset"); }
  void read(std::istream& in) {
    std::vector<char> bytes(size_);
    if (!in.read(bytes.data(), static_cast<std::streamsize>(size_))) fail("case: expected more bytes of tensors");
    check(cudaMemcpy(data_, bytes.data(), size_, cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  std::vector<char> bytes() const {
    std::vector<char> out(size_);
    check(cudaMemcpy(out.data(), data_, size_, cudaMemcpyDeviceToHost), "cudaMemcpy");
    return out;
  }
  void write(std::ostream& out) const { out.write(bytes().data(), static_cast<std::streamsize>(size_)); }
  void* get() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

std::size_t size_of(int dtype) { return dtype == ELASTIC_FLOAT32 ? 4 : 2; }

// The tensors that stay for all calls of a case, and the states that go from call to call.
struct Case {
  explicit Case(const Header& h)
      : shape{h.number("batch"),     1,
              h.number("heads"),     h.number("head_dim"),
              h.number("groups"),    h.number("state_size"),
              h.number("conv_width")},
        activation(h.number("activation")),
        head_param(h.number("head_param")),
        aliased(h.number("aliased") != 0),
        channels(shape.heads * shape.head_dim + 2 * shape.groups * shape.state_size),
        inner(shape.heads * shape.head_dim),
        conv_bytes(size_of(activation) * shape.batch * (shape.conv_width - 1) * channels),
        ssm_bytes(sizeof(float) * shape.batch * inner * shape.state_size),
        conv_weight(size_of(activation) * channels * shape.conv_width),
        conv_bias(size_of(activation) * channels),
        a_log(size_of(head_param) * shape.heads),
        d(size_of(head_param) * shape.heads),
        dt_bias(size_of(head_param) * shape.heads),
        norm_weight(size_of(activation) * inner),
        conv{DeviceBytes(conv_bytes), DeviceBytes(conv_bytes)},
        ssm{DeviceBytes(ssm_bytes), DeviceBytes(aliased ? 1 : ssm_bytes)} {}

  void read(std::istream& in) {
    for (DeviceBytes* tensor : {&conv_weight, &conv_bias, &a_log, &d, &dt_bias, &norm_weight, &conv[0], &ssm[0]})
      tensor->read(in);
  }

  ElasticMamba2Shape shape;
  int activation, head_param;
  bool aliased;
  int channels, inner;
  std::size_t conv_bytes, ssm_bytes;
  DeviceBytes conv_weight, conv_bias, a_log, d, dt_bias, norm_weight;
  DeviceBytes conv[2], ssm[2];  // the current state and the next one, by turns
};

ElasticMamba2Args arguments(const Header& h, const Case& c, const ElasticMamba2Shape& shape, int turn) {
  ElasticMamba2Args args = {};
  args.shape = shape;
  args.activation = c.activation;
  args.head_param = c.head_param;
  args.epsilon = h.real("epsilon");
  args.time_step_min = h.real("time_step_min");
  args.time_step_max = h.real("time_step_max");
  args.multiprocessors = h.number("multiprocessors");
  args.conv_weight = c.conv_weight.get();
  args.conv_bias = c.conv_bias.get();
  args.a_log = c.a_log.get();
  args.d = c.d.get();
  args.dt_bias = c.dt_bias.get();
  args.norm_weight = c.norm_weight.get();
  args.conv_state = c.conv[turn].get();
  args.conv_state_out = c.conv[1 - turn].get();
  args.ssm_state = c.ssm[c.aliased ? 0 : turn].as<float>();
  args.ssm_state_out = c.ssm[c.aliased ? 0 : 1 - turn].as<float>();
  return args;
}

void check_counters(const DeviceBytes& counters) {
  for (char byte : counters.bytes())
    if (byte != 0) fail("counters: expected zeros after the call, found another value");
}

cudaStream_t stream = nullptr;

void make_own_stream() {
#if !defined(ELASTIC_HOST_SHIM)  // which has no streams
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
#endif
}

void enqueue(const ElasticMamba2Args& args, [[maybe_unused]] int kernel) {
#if defined(ELASTIC_THROUGH_PLUGIN)
  elastic::mamba2::trt::call_plugin(args, stream);
#else
  check(elastic_mamba2_enqueue(&args, kernel, stream));
#endif
}

// One call: its tokens from `in`, its y to `out`.
void run_call(const Header& h, Case& c, int tokens, int turn, std::istream& in, std::ostream& out) {
  ElasticMamba2Shape shape = c.shape;
  shape.tokens = tokens;
  ElasticMamba2Requirements needed;
  check(elastic_mamba2_requirements(&shape, &needed));
  const std::size_t rows = static_cast<std::size_t>(shape.batch) * tokens, element = size_of(c.activation);
  DeviceBytes length(sizeof(int64_t) * shape.batch), projected(rows * (c.inner + c.channels + shape.heads) * element);
  DeviceBytes y(rows * c.inner * element), workspace(needed.workspace_bytes);
  DeviceBytes counters(sizeof(uint32_t) * (needed.counters > 0 ? needed.counters : 1));
  length.read(in);
  projected.read(in);
  counters.fill(0);
  c.conv[1 - turn].fill(kPoison);
  if (!c.aliased) c.ssm[1 - turn].fill(kPoison);
  ElasticMamba2Args args = arguments(h, c, shape, turn);
  args.length = length.as<int64_t>();
  args.projected = projected.get();
  args.y = y.get();
  args.workspace = workspace.as<float>();
  args.counters = counters.as<uint32_t>();
  check(cudaDeviceSynchronize(), "what the call needs");
  enqueue(args, h.number("kernel"));
  check(cudaDeviceSynchronize(), "kernel");
  check_counters(counters);
  y.write(out);
}

void run(std::istream& in, std::ostream& out) {
  const Header header(in);
#if defined(ELASTIC_HOST_SHIM)
  elastic::shim::set_order(static_cast<elastic::shim::Order>(header.number("order")),
                           static_cast<std::uint64_t>(header.number("seed")));
#endif
  Case c(header);
  c.read(in);
  int turn = 0;
  for (int tokens : header.numbers("calls")) {
    run_call(header, c, tokens, turn, in, out);
    turn = 1 - turn;
  }
  c.conv[turn].write(out);
  c.ssm[c.aliased ? 0 : turn].write(out);
}

void run_files(const std::string& source, const std::string& target) {
  std::ifstream in(source, std::ios::binary);
  std::ofstream out(target, std::ios::binary);
  if (!in || !out) fail("case_runner: expected a readable case and a writable output");
  run(in, out);
  if (!out.flush()) fail("case_runner: " + target + ": expected to be written, found an error");
}

bool run_list(const std::string& list) {
  std::ifstream in(list);
  bool all = static_cast<bool>(in);
  for (std::string source, target; std::getline(in, source) && std::getline(in, target);) try {
      run_files(source, target);
      std::puts("case: ok");
    } catch (const std::exception& error) {
      all = false;
      std::printf("case: %s\n", error.what());
    }
  return all;
}

}  // namespace

int main(int count, char** words) try {
  std::vector<std::string> arguments(words + 1, words + count);
  if (!arguments.empty() && arguments[0] == "--own-stream") {
    make_own_stream();
    arguments.erase(arguments.begin());
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 1024);  // what was said of cases stays said if a later one ends the process
  if (arguments.size() == 1) return run_list(arguments[0]) ? 0 : 1;
  if (arguments.size() != 2) fail("usage: case_runner CASE OUTPUT, or case_runner [--own-stream] LIST");
  run_files(arguments[0], arguments[1]);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
