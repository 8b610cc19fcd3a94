// Snapshots of sessions on the TensorRT backend, against stand-ins for the SDKs.
#include <memory>
#include <vector>

#include "check.h"
#include "device_bundle.h"
#include "fake_sdk.h"

using namespace elastic;
using namespace elastic_test;

TEST(device_goes_back_to_a_snapshot) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.max_batch = 3;
  {
    Session session(backend_of(bundle, options));
    for (const Place place : {Place::kDevice, Place::kHost}) {
      for (const int steps : {2, 3}) {  // the states that swap lie on either side
        session.reset(2);
        session.feed({{1, 1, 1}, {7}});
        for (int i = 0; i < steps; ++i) session.feed({{2}, {3}});
        const int before = fake::state().live_allocations;
        const Snapshot saved = session.snapshot(place);
        CHECK_EQ(fake::state().live_allocations - before, place == Place::kDevice ? 3 : 0);
        // conv and ssm of two sequences, the cache's rows of the longer one, the logits
        CHECK_EQ(saved.bytes(), 2 * 4 + 2 * 4 + 2 * (3 + steps) * 4 + 2 * 16 * 4);
        const auto follows = [&] {
          const float* logits = session.feed({{4}, {5}});
          return std::vector<float>(logits, logits + 2 * 16);
        };
        const auto wanted = follows();
        for (int i = 0; i < 2; ++i) {
          session.reset(2);
          session.feed({{9, 9, 9, 9, 9, 9, 9}, {8}});
          session.restore(saved);
          CHECK(follows() == wanted);
        }
      }
    }
  }
  CHECK_EQ(fake::state().live_allocations, 0);
}

TEST(device_refuses_saved_states_of_another_shape) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.max_batch = 2;
  const std::unique_ptr<Backend> one = backend_of(bundle, options), other = backend_of(bundle, options);
  one->reset(1);
  other->reset(2);
  for (const Place place : {Place::kDevice, Place::kHost}) {
    const std::unique_ptr<SavedStates> saved = one->save(3, place);
    CHECK_EQ(THROWN(InputError, other->load(*saved)).found, "states of another shape or dtype");
    one->load(*saved);
  }
}

TEST(device_without_room_for_a_snapshot_goes_on) {
  const Bundle bundle = make_bundle();
  Session session(backend_of(bundle));
  session.feed({{1, 2, 3}});
  fake::state().free_bytes = 0;
  CHECK_EQ(THROWN(BuildError, session.snapshot()).found, "out of memory");
  CHECK_EQ(peak(session.feed({{4}})), (10 + 4 + 5) % 16);
  const Snapshot saved = session.snapshot(Place::kHost);
  session.restore(saved);
  CHECK_EQ(peak(session.feed({{1}})), (11 + 5 + 5) % 16);
}
