// Runs recorded cases through the C interface: on a GPU, or on the host shim, from the same source.
//   case_runner [--own-stream] CASE OUTPUT
//   case_runner [--own-stream] LIST
// CASE: header, then the tensors as raw bytes (cases.py writes it). OUTPUT: y of each call, then both states after the
// last. All memory a kernel must write is poisoned with NaN first. Exit 0; 1 with a text. LIST: a line CASE and a line
// OUTPUT by turns (../../common/testing/recorded_case.h).
#include "../../common/testing/recorded_case.h"
#include "../elastic_mamba2.h"
#if defined(ELASTIC_THROUGH_PLUGIN)  // the same cases through the TensorRT plugin's enqueue
#include "plugin_call.h"
#endif

namespace {

using namespace elastic::testing;

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

void enqueue(const ElasticMamba2Args& args, [[maybe_unused]] int kernel, cudaStream_t stream) {
#if defined(ELASTIC_THROUGH_PLUGIN)
  elastic::mamba2::trt::call_plugin(args, stream);
#else
  check(elastic_mamba2_enqueue(&args, kernel, stream));
#endif
}

// One call: its tokens from `in`, its y to `out`.
void run_call(const Header& h, Case& c, int tokens, int turn, std::istream& in, std::ostream& out,
              cudaStream_t stream) {
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
  enqueue(args, h.number("kernel"), stream);
  check(cudaDeviceSynchronize(), "kernel");
  check_counters(counters);
  y.write(out);
}

void run(std::istream& in, std::ostream& out, cudaStream_t stream) {
  const Header header(in);
  set_order(header);
  Case c(header);
  c.read(in);
  int turn = 0;
  for (int tokens : header.numbers("calls")) {
    run_call(header, c, tokens, turn, in, out, stream);
    turn = 1 - turn;
  }
  c.conv[turn].write(out);
  c.ssm[c.aliased ? 0 : turn].write(out);
}

}  // namespace

int main(int count, char** words) { return run_recorded(count, words, run); }
