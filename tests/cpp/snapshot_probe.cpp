// Whether a session on onnxruntime that went back to a snapshot goes on, bit for bit, as if it had never
// left: `BUNDLE BUDGET [card]` of a model that onnxruntime's CPU runs. Says the snapshot's bytes and the
// digest of the logits that follow, or what differs.
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "elastic_runtime/bundle.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/onnx_backend.h"
#include "elastic_runtime/session.h"
#include "elastic_runtime/sha256.h"

namespace {

/// The logits of a few calls, a prompt among them.
std::vector<float> follows(elastic::Session& session) {
  std::vector<float> all;
  for (const elastic::Session::Rows& rows :
       {elastic::Session::Rows{{5, 6, 7}, {8}}, {{9}, {10}}, {{11}, {}}}) {
    const float* logits = session.feed(rows);
    all.insert(all.end(), logits, logits + 2 * session.shape().vocab);
  }
  return all;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Whether states saved of one sequence are refused where two are under way.
bool refuses_others(elastic::Backend& backend) {
  backend.reset(1);
  const auto saved = backend.save(3, elastic::Place::kHost);
  backend.reset(2);
  try {
    backend.load(*saved);
    return false;
  } catch (const elastic::InputError& error) {
    return error.found == "states of another shape or dtype";
  }
}

/// Whether memory on a card is left for a session to ask for: opening goes on elsewhere where there is none,
/// and a session cannot.
bool leaves_states_for_later(elastic::Backend& backend) {
  const std::int64_t held = backend.memory();
  for (const std::int64_t batch : {2, 1}) {
    backend.reset(batch);
    if (backend.memory() != held) return true;
  }
  return false;
}

/// Whether no rows are refused as any other number of them, wherever the states are made.
bool refuses_no_rows(const elastic::Bundle& bundle, const char* budget, elastic::OnnxOptions options) {
  options.max_batch = 0;
  try {
    elastic::Session session(elastic::make_onnx_backend(bundle, bundle.budget(budget), options));
    return false;
  } catch (const elastic::InputError& error) {
    return error.subject == "max_batch";
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool on_card = argc == 4 && std::string(argv[3]) == "card";
  if (argc != 3 && !on_card) return 2;
  const auto bundle = elastic::Bundle::open(argv[1]);
  elastic::OnnxOptions options;
  options.max_context = 128;
  options.max_batch = 2;
  options.threads = 1;
  constexpr std::int64_t kFree = std::int64_t{8} << 30;
  if (on_card) options.card = elastic::Device{"a card", "12.0", kFree, kFree};
  auto backend = elastic::make_onnx_backend(bundle, bundle.budget(argv[2]), options);
  if (on_card && leaves_states_for_later(*backend)) return std::puts("states are made with a session"), 1;
  if (!refuses_no_rows(bundle, argv[2], options)) return std::puts("no rows are taken"), 1;
  if (!refuses_others(*backend)) return std::puts("states of another shape are taken"), 1;
  elastic::Session session(std::move(backend));
  for (const std::size_t length : {std::size_t{40}, std::size_t{41}}) {  // states lie on either side
    session.reset(2);
    session.feed({std::vector<std::int64_t>(length, 65), {66, 67}});
    if (length == 41) session.feed({{}, {68}});
    const elastic::Place place = length == 41 ? elastic::Place::kDevice : elastic::Place::kHost;
    const elastic::Snapshot saved = session.snapshot(place);
    const std::vector<float> wanted = follows(session);
    for (int i = 0; i < 2; ++i) {
      session.reset(2);
      session.feed({std::vector<std::int64_t>(100, 70), {71}});
      session.restore(saved);
      if (!same(follows(session), wanted)) return std::puts("the logits differ"), 1;
    }
    const std::string logits(reinterpret_cast<const char*>(wanted.data()), wanted.size() * sizeof(float));
    std::printf("%lld %s\n", static_cast<long long>(saved.bytes()), elastic::sha256(logits).c_str());
  }
  return 0;
}
