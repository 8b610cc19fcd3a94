#include "check.h"
#include "counting_backend.h"
#include "elastic_runtime/generate.h"
#include "elastic_runtime/session.h"
#include "words.h"

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

SessionShape shape_of(const Value& value) {
  return {integer(at(value, "vocab")), integer(at(value, "max_context")), integer(at(value, "max_tokens")),
          integer(at(value, "max_batch"))};
}

Rows rows_of(const Value& value) {
  Rows rows;
  for (const Value& row : items(value)) {
    rows.emplace_back();
    for (const Value& id : items(row)) rows.back().push_back(integer(id));
  }
  return rows;
}

std::string finish_of(Stop stop) {
  return stop == Stop::kToken ? "stop_token" : stop == Stop::kContext ? "context" : "length";
}

/// Takes a step of session.json; what a generation made is compared here.
void take(Session& session, const Value& step) {
  const std::string what = text(at(step, "do"));
  if (what == "reset") return session.reset(static_cast<std::int64_t>(session.positions().size()));
  if (what == "set_pending") {
    const Value& token = at(step, "token");
    return session.set_pending(static_cast<std::size_t>(integer(at(step, "row"))),
                               token.is_null() ? std::nullopt : std::optional(integer(token)));
  }
  const Rows rows = rows_of(at(step, "rows"));
  if (what == "feed") return (void)session.feed(rows);
  GenerateOptions options;
  options.max_new = integer(at(step, "max_new"));
  for (const Value& id : items(at(step, "stop_ids"))) options.stop_ids.push_back(integer(id));
  const Words words;
  const auto made = generate(session, rows, options, &words);
  for (std::size_t row = 0; row < made.size(); ++row) {
    CHECK(made[row].ids == rows_of(at(step, "ids"))[row]);
    CHECK_EQ(made[row].text, text(items(at(step, "text"))[row]));
    CHECK_EQ(finish_of(made[row].stop), text(items(at(step, "finish"))[row]));
  }
}

std::int64_t or_none(const Value& value) { return value.is_null() ? -1 : integer(value); }

}  // namespace

TEST(session_steps_as_in_python) {
  const Value file = golden("session.json");
  for (const Value& wanted : items(at(file, "cases"))) {
    Fixture fixture(shape_of(at(file, "shape")));
    fixture.session.reset(integer(at(wanted, "batch")));
    const std::string name = text(at(wanted, "name")) + ", step ";
    int number = 0;
    for (const Value& step : items(at(wanted, "steps"))) {
      const std::string where = name + std::to_string(++number) + ": ";
      std::string error;
      try {
        take(fixture.session, step);
      } catch (const InputError& refused) {
        error = refused.subject + "|" + refused.expected + "|" + refused.found;
      }
      const Value* expected = find(step, "error");
      CHECK_EQ(where + error, where + (expected && !expected->is_null() ? text(*expected) : ""));
      for (std::size_t row = 0; row < fixture.session.positions().size(); ++row) {
        const auto index = static_cast<std::int64_t>(row);
        CHECK_EQ(where + std::to_string(fixture.peak(fixture.session.logits(), index)),
                 where + std::to_string(or_none(items(at(step, "peaks"))[row])));
        CHECK_EQ(fixture.session.positions()[row], integer(items(at(step, "positions"))[row]));
        CHECK_EQ(fixture.session.pending()[row].value_or(-1), or_none(items(at(step, "pending"))[row]));
      }
    }
  }
}

TEST(session_ends_between_two_calls_when_the_hook_throws) {
  Fixture fixture({16, 20, 4, 1});
  int calls = 0;
  fixture.session.before_call([&] {
    if (++calls == 3) throw std::string("enough");
  });
  fixture.session.set_pending(0, 9);
  CHECK_EQ(THROWN(std::string, fixture.session.feed({{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}})), "enough");
  CHECK_EQ(fixture.session.positions()[0], 8);  // two calls of four
  CHECK(!fixture.session.pending()[0]);
  CHECK_EQ(fixture.peak(fixture.session.logits()), (9 + 7 + 8) % 16);
  CHECK_EQ(fixture.peak(fixture.session.feed({{1}})), (9 + 8 + 9) % 16);
}

TEST(session_a_pending_token_is_one_of_the_vocabulary) {
  Fixture fixture;
  CHECK_EQ(std::string(THROWN(InputError, fixture.session.set_pending(0, 16)).what()),
           "token ids: expected 0 to 15, found 16.");
  CHECK(!fixture.session.pending()[0]);
}

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
  CHECK_EQ(refused({{1}, {2}}), "prompt: expected ids for 1 rows, found 2 rows.");
  CHECK_EQ(refused({{}}), "prompt: expected at least one token, found none.");
  CHECK_EQ(refused({{16}}), "token ids: expected 0 to 15, found 16.");
  CHECK_EQ(refused({{0, -1}}), "token ids: expected 0 to 15, found -1.");
  CHECK_EQ(refused({std::vector<std::int64_t>(21, 1)}),
           "prompt: expected at most 20 tokens, the context, found 21. Shorten it, or open the bundle with a "
           "larger "
           "context.");
  CHECK_EQ(fixture.session.positions()[0], 0);
  CHECK_EQ(THROWN(InputError, fixture.session.reset(4)).expected, "1 to 3");
  CHECK_EQ(THROWN(InputError, fixture.session.reset(0)).found, "0");
}

TEST(session_goes_back_to_a_snapshot_as_often_as_one_likes) {
  Fixture fixture;
  fixture.session.reset(2);
  fixture.session.feed({{1, 2, 3, 4, 5}, {6}});
  fixture.session.set_pending(1, 7);
  const Snapshot saved = fixture.session.snapshot();
  CHECK_EQ(saved.bytes(), 8 * 5 + 2 * 16 * 4);  // the rows of the longest, and the logits
  const std::vector<float> logits(fixture.session.logits(), fixture.session.logits() + 32);
  const auto follows = [&] {
    const float* next = fixture.session.feed({{1}, {2}});
    return std::vector<std::int64_t>{fixture.peak(next, 0), fixture.peak(next, 1)};
  };
  const auto wanted = follows();
  for (int i = 0; i < 2; ++i) {
    fixture.session.reset(2);
    fixture.session.feed({{9}, {9}});
    fixture.session.restore(saved);
    CHECK(fixture.session.positions() == std::vector<std::int64_t>({5, 1}));
    CHECK(!fixture.session.pending()[0]);
    CHECK_EQ(fixture.session.pending()[1].value_or(-1), 7);
    CHECK(std::vector<float>(fixture.session.logits(), fixture.session.logits() + 32) == logits);
    CHECK(follows() == wanted);
  }
}

TEST(session_goes_back_to_a_snapshot_after_a_batch_without_room) {
  struct Scarce : CountingBackend {
    using CountingBackend::CountingBackend;
    void reset(std::int64_t batch) override {
      CountingBackend::reset(rows = batch);
      if (batch == 3) throw BuildError("memory", "room", "none");
    }
    void load(const SavedStates& states) override {
      CHECK_EQ(rows, 1);
      CountingBackend::load(states);
    }
    std::int64_t rows = 0;
  };
  Session session(std::make_unique<Scarce>(SessionShape{16, 20, 4, 3}, std::make_shared<Record>()));
  session.feed({{1, 2}});
  const Snapshot saved = session.snapshot();
  CHECK_EQ(THROWN(BuildError, session.reset(3)).subject, "memory");
  CHECK(!session.whole());
  session.restore(saved);
  CHECK(session.whole());
  session.feed({{3}});
  CHECK(session.positions() == std::vector<std::int64_t>({3}));
}

TEST(session_refuses_a_snapshot_of_another) {
  Fixture fixture, other({16, 30, 4, 3});
  fixture.session.feed({{1, 2}});
  const auto refused = [&](const Snapshot& snapshot) {
    return std::string(THROWN(InputError, fixture.session.restore(snapshot)).what());
  };
  CHECK_EQ(refused(other.session.snapshot()),
           "snapshot's context: expected 20, found 30. Restore it where it was taken, or prefill again.");
  Fixture rows;
  rows.session.reset(2);
  CHECK_EQ(refused(rows.session.snapshot()),
           "snapshot's batch: expected 1, found 2. Restore it where it was taken, or prefill again.");
  CHECK_EQ(fixture.session.positions()[0], 2);
}

TEST(session_needs_a_backend) {
  CHECK_EQ(std::string(THROWN(InputError, Session(nullptr)).what()),
           "session: expected a backend, found none. Give it what open_backend returns.");
}

TEST(session_a_row_that_goes_on_has_a_pending_token) {
  Fixture fixture;
  fixture.session.reset(2);
  const OnToken forgets = [&](std::size_t row, std::int64_t, std::string_view) {
    if (row == 0) fixture.session.set_pending(0, std::nullopt);
    return true;
  };
  CHECK_EQ(
      std::string(THROWN(InputError, generate(fixture.session, {{1}, {2}}, {}, nullptr, forgets)).what()),
      "row 0: expected a pending token, found none. Set one with set_pending, or leave the row out.");
  CHECK(fixture.session.positions() == std::vector<std::int64_t>({1, 1}));
}

TEST(session_that_a_callback_moves_ends_the_generation) {
  Fixture fixture;
  const OnToken moves = [&](std::size_t, std::int64_t, std::string_view) {
    fixture.session.feed({{1}});
    return true;
  };
  GenerateOptions options;
  CHECK_EQ(
      std::string(THROWN(InputError, generate(fixture.session, {{1, 2}}, options, nullptr, moves)).what()),
      "generation: expected the session as it left it, found one that was fed, reset or restored since, or "
      "on "
      "which another generation began. Finish one before the next, or open a session for each.");
}
