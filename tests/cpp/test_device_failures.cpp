// What the TensorRT backend leaves behind when a call of the SDKs fails, against stand-ins that refuse any
// one of them.
#include <filesystem>
#include <string>

#include "check.h"
#include "device_bundle.h"
#include "elastic_runtime/bundle.h"
#include "elastic_runtime/generate.h"
#include "elastic_runtime/tensorrt_backend.h"
#include "fake_sdk.h"

using namespace elastic;
using namespace elastic_test;
namespace fs = std::filesystem;

TEST(device_a_card_that_is_gone_is_named_and_everything_given_back) {
  const Bundle bundle = make_bundle();
  for (int which = 1; which <= 9; ++which) {  // the allocations of an engine of one weight and three states
    fake::state() = {};
    fake::state().fails_at = which;
    const BuildError error = THROWN(BuildError, backend_of(bundle));
    CHECK_EQ(error.expected + "|" + error.found, "the GPU to do it|the device is gone");
    CHECK_EQ(error.todo, "see whether nvidia-smi shows the card as sound, or run on the CPU");
    CHECK_EQ(error.exit_code(), 1);
    CHECK_EQ(fake::state().live_allocations, 0);
  }
}

TEST(device_whichever_call_fails_while_it_opens_everything_is_given_back) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  int said = 0, ends = 0;
  options.warn = [&](const std::string& text) {
    if (++said == ends) throw text;  // as a listener that ends it
  };
  options.runtime_cache = bundle.path() / "kernels";
  backend_of(bundle, options);
  const int calls = fake::state().calls, words = said;
  const auto opens = [&] {
    said = 0;
    fs::remove(*options.runtime_cache);
    try {
      backend_of(bundle, options);
    } catch (const BuildError&) {
      return false;
    } catch (const std::string&) {
      return false;
    }
    return true;
  };
  const auto check_nothing_left = [] {
    CHECK_EQ(fake::state().live, 0);
    CHECK_EQ(fake::state().live_allocations, 0);
    CHECK_EQ(fake::state().pinned.size(), std::size_t{0});
  };
  int taken_all_the_same = 0;  // a cache of kernels that cannot be made, or not written
  for (int which = 1; which <= calls; ++which) {
    fake::state() = {};
    fake::state().refuses = which;
    taken_all_the_same += opens();
    check_nothing_left();
  }
  CHECK_EQ(taken_all_the_same, 3);
  for (ends = 1; ends <= words; ++ends) {
    fake::state() = {};
    CHECK(!opens());
    check_nothing_left();
  }
  CHECK(calls > 60 && words == 2);
}

TEST(device_a_session_does_not_go_on_from_states_that_nobody_knows) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.cuda_graph = false;  // every step asks for the same
  Session session(backend_of(bundle, options));
  session.feed({{1, 2}});
  const Snapshot kept = session.snapshot();
  fake::state().calls = 0;
  session.feed({{3}});
  const int calls = fake::state().calls;
  for (int which = 1; which <= calls; ++which) {  // some of them after the engine has run
    session.restore(kept);
    fake::state().calls = 0;
    fake::state().refuses = which;
    CHECK_EQ(THROWN(BuildError, session.feed({{3}})).exit_code(), 1);
    fake::state().refuses = 0;
    const InputError left = THROWN(InputError, session.feed({{3}}));
    CHECK_EQ(std::string(left.what()),
             "session: expected no call under way, and none that was left in the middle, found one. Reset it "
             "and feed its tokens again, or restore a snapshot.");
    CHECK_EQ(THROWN(InputError, session.snapshot()).subject, "session");
    CHECK_EQ(THROWN(InputError, generate(session, {{}}, {})).subject, "session");
    CHECK(session.positions() == kept.positions());  // what is certain
  }
  CHECK(calls >= 5);
  session.restore(kept);
  CHECK_EQ(peak(session.feed({{3}})), (1 + 2 + 3 + 3 + 5) % fake::kVocab);
  session.reset();
  drive(session);
}
