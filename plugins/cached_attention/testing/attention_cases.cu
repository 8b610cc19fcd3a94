// Runs recorded cases through the C interface: on a GPU, or on the host shim, from the same source.
//   attention_cases [--own-stream] CASE OUTPUT
//   attention_cases [--own-stream] LIST
// CASE: header, both caches, then position, query, key and value of each call (cases.py writes it). OUTPUT: y of each
// call, then both caches after the last. All memory a kernel must write is poisoned with NaN first. Exit 0; 1 with a
// text. LIST: a line CASE and a line OUTPUT by turns (../../common/testing/recorded_case.h).
#include "../../common/testing/recorded_case.h"
#include "../elastic_attention.h"
#if defined(ELASTIC_THROUGH_PLUGIN)  // the same cases through the TensorRT plugin's enqueue
#include "attention_call.h"
#endif

namespace {

using namespace elastic::testing;

constexpr std::size_t kElementBytes = 2;

// The caches, which stay for all calls of a case.
struct Case {
  explicit Case(const Header& h)
      : shape{h.number("batch"),           1, h.number("heads"), h.number("key_value_heads"), h.number("head_dim"),
              h.number("context")},
        dtype(h.number("dtype")),
        rows(static_cast<std::size_t>(shape.batch) * shape.key_value_heads * shape.context),
        key_cache(rows * shape.head_dim * kElementBytes),
        value_cache(rows * shape.head_dim * kElementBytes) {}

  ElasticAttentionShape shape;
  int dtype;
  std::size_t rows;
  DeviceBytes key_cache, value_cache;
};

void enqueue(const ElasticAttentionArgs& args, [[maybe_unused]] int kernel, cudaStream_t stream) {
#if defined(ELASTIC_THROUGH_PLUGIN)
  elastic::attention::trt::call_plugin(args, stream);
#else
  check(elastic_attention_enqueue(&args, kernel, stream));
#endif
}

// One call: its tensors from `in`, its y to `out`.
void run_call(const Header& h, Case& c, int tokens, std::istream& in, std::ostream& out, cudaStream_t stream) {
  ElasticAttentionShape shape = c.shape;
  shape.tokens = tokens;
  ElasticAttentionRequirements needed;
  check(elastic_attention_requirements(&shape, &needed));
  const std::size_t row = static_cast<std::size_t>(shape.batch) * tokens * shape.head_dim * kElementBytes;
  DeviceBytes position(sizeof(int64_t) * shape.batch), query(row * shape.heads), y(row * shape.heads);
  DeviceBytes key(row * shape.key_value_heads), value(row * shape.key_value_heads), workspace(needed.workspace_bytes);
  for (DeviceBytes* tensor : {&position, &query, &key, &value}) tensor->read(in);
  ElasticAttentionArgs args = {};
  args.shape = shape;
  args.dtype = c.dtype;
  args.scale = h.real("scale");
  args.multiprocessors = h.number("multiprocessors");
  args.query = query.get();
  args.key = key.get();
  args.value = value.get();
  args.position = position.as<int64_t>();
  args.key_cache = c.key_cache.get();
  args.value_cache = c.value_cache.get();
  args.y = y.get();
  args.workspace = workspace.as<float>();
  check(cudaDeviceSynchronize(), "what the call needs");
  enqueue(args, h.number("kernel"), stream);
  check(cudaDeviceSynchronize(), "kernel");
  y.write(out);
}

void run(std::istream& in, std::ostream& out, cudaStream_t stream) {
  const Header header(in);
  set_order(header);
  Case c(header);
  c.key_cache.read(in);
  c.value_cache.read(in);
  for (int tokens : header.numbers("calls")) run_call(header, c, tokens, in, out, stream);
  c.key_cache.write(out);
  c.value_cache.write(out);
}

}  // namespace

int main(int count, char** words) { return run_recorded(count, words, run); }
