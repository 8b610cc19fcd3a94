#include "check.h"
#include "counting_backend.h"
#include "elastic_runtime/session.h"

using namespace elastic;
using namespace elastic_test;

namespace {

using Rows = std::vector<std::vector<std::int64_t>>;

struct Fixture {
  explicit Fixture(SessionShape shape = {16, 20, 4, 3})
      : record(std::make_shared<Record>()), session(std::make_unique<CountingBackend>(shape, record)) {}
  std::shared_ptr<Record> record;
  Session session;

  std::int64_t peak(const float* logits, std::int64_t row = 0) const {
    for (std::int64_t id = 0; id < session.shape().vocab; ++id) {
      if (logits[row * session.shape().vocab + id] > 0) return id;
    }
    return -1;
  }
};

}  // namespace

TEST(session_cuts_a_prompt_and_the_cut_does_not_matter) {
  Fixture whole({16, 20, 20, 1}), cut({16, 20, 3, 1});
  const Rows prompt = {{1, 2, 3, 4, 5, 6, 7}};
  CHECK_EQ(whole.peak(whole.session.feed(prompt)), (28 + 7) % 16);
  CHECK_EQ(cut.peak(cut.session.feed(prompt)), (28 + 7) % 16);
  CHECK(cut.record->tokens == std::vector<std::int64_t>({3, 3, 1}));
  CHECK_EQ(cut.session.positions()[0], 7);
}

TEST(session_rows_of_unlike_length) {
  Fixture fixture;
  fixture.session.reset(3);
  const float* logits = fixture.session.feed({{1, 1, 1, 1, 1, 1}, {5}, {}});
  CHECK_EQ(fixture.peak(logits, 0), 12);
  CHECK_EQ(fixture.peak(logits, 1), 6);
  CHECK_EQ(fixture.peak(logits, 2), -1);
  logits = fixture.session.feed({{}, {2}, {3}});
  CHECK_EQ(fixture.peak(logits, 0), 12);  // still those of its last token
  CHECK_EQ(fixture.peak(logits, 1), 9);
  CHECK(fixture.session.positions() == std::vector<std::int64_t>({6, 2, 1}));
}

TEST(session_is_never_padded_past_the_context) {
  Fixture fixture({16, 10, 4, 2});
  fixture.session.reset(2);
  fixture.session.feed({{1, 1, 1, 1, 1, 1, 1, 1}, {1}});  // row 0 has room for 2 more, row 1 for 9
  fixture.session.feed({{1}, {1, 1, 1, 1, 1, 1}});        // calls of at most 2, then 1
  fixture.session.feed({{1}, {}});                        // row 0 is full
  fixture.session.feed({{}, {1, 1, 1}});                  // and must not hinder the other
  CHECK(fixture.session.positions() == std::vector<std::int64_t>({10, 10}));
}

TEST(session_reset_forgets) {
  Fixture fixture;
  fixture.session.feed({{1, 2, 3}});
  fixture.session.reset();
  CHECK_EQ(fixture.peak(fixture.session.feed({{4}})), 5);
}

TEST(session_refuses) {
  Fixture fixture;
  const auto refused = [&](const Rows& rows) {
    return std::string(THROWN(InputError, fixture.session.feed(rows)).what());
  };
  CHECK_EQ(refused({{1}, {2}}), "batch: expected 1 rows, found 2.");
  CHECK_EQ(refused({{}}), "prompt: expected at least one token, found none.");
  CHECK_EQ(refused({{16}}), "row 0: expected token ids from 0 to 15, found 16.");
  CHECK_EQ(refused({{0, -1}}), "row 0: expected token ids from 0 to 15, found -1.");
  CHECK_EQ(refused({std::vector<std::int64_t>(21, 1)}),
           "row 0: expected at most 20 tokens more in a context of 20, found 21. Shorten the prompt or open "
           "a larger context.");
  CHECK_EQ(fixture.session.positions()[0], 0);
  CHECK_EQ(THROWN(InputError, fixture.session.reset(4)).expected, "1 to 3");
  CHECK_EQ(THROWN(InputError, fixture.session.reset(0)).found, "0");
}
