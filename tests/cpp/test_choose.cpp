#include <algorithm>

#include "check.h"
#include "elastic_runtime/choose.h"
#include "elastic_runtime/forms.h"

using namespace elastic;
using namespace elastic_test;

namespace {

Request request_of(const Value& value) {
  Request request{integer(at(value, "vram")), {}, integer(at(value, "batch")), {}};
  if (!at(value, "context").is_null()) request.context = integer(at(value, "context"));
  const std::string* capability = if_text(at(value, "compute_capability"));
  if (capability) request.compute_capability = *capability;
  return request;
}

}  // namespace

TEST(choose_equals_python) {
  const Value file = golden("choose.json");
  const Manifest manifest = parse_manifest(golden_text(text(at(file, "manifest"))));
  for (const Value& wanted : items(at(file, "cases"))) {
    const Choice choice = choose(manifest.budgets, request_of(wanted));
    const Reckoning* chosen = choice.chosen();
    CHECK_EQ(choice.explain(), text(at(wanted, "explain")));
    CHECK_EQ(chosen == nullptr, at(wanted, "budget").is_null());
    if (!chosen || at(wanted, "budget").is_null()) continue;
    CHECK_EQ(chosen->budget->name, text(at(wanted, "budget")));
    CHECK_EQ(chosen->engine->file, text(at(wanted, "engine")));
    CHECK_EQ(chosen->need->total, integer(at(wanted, "total")));
  }
}

TEST(choose_names_stand_for_the_forms_that_python_says) {
  const Value file = golden("forms.json");
  const Manifest manifest = parse_manifest(golden_text(text(at(file, "manifest"))));
  for (const Value& wanted : items(at(file, "names"))) {
    const std::string name = text(at(wanted, "name"));
    if (at(wanted, "entries").is_null()) {
      const InputError error = THROWN(InputError, forms_of(manifest, name));
      CHECK_EQ(error.expected, text(at(wanted, "expected")));
      CHECK_EQ(error.found, text(at(wanted, "found")));
      continue;
    }
    const std::vector<const BudgetEntry*> found = forms_of(manifest, name);
    const auto& entries = items(at(wanted, "entries"));
    CHECK_EQ(found.size(), entries.size());
    for (std::size_t i = 0; i < std::min(found.size(), entries.size()); ++i)
      CHECK_EQ(found[i]->name, text(entries[i]));
  }
}

TEST(choose_takes_of_both_forms_what_python_takes) {
  const Value file = golden("forms.json");
  const Manifest manifest = parse_manifest(golden_text(text(at(file, "manifest"))));
  for (const Value& wanted : items(at(file, "choose"))) {
    std::vector<BudgetEntry> forms;
    for (const BudgetEntry* entry : forms_of(manifest, text(at(wanted, "name")))) forms.push_back(*entry);
    std::reverse(forms.begin(), forms.end());  // which comes first does not depend on the order
    const Choice choice = choose(forms, {integer(at(wanted, "vram")), integer(at(wanted, "context")), 1, {}});
    CHECK_EQ(choice.explain(), text(at(wanted, "explain")));
    const Reckoning* chosen = choice.chosen();
    CHECK_EQ(chosen == nullptr, at(wanted, "budget").is_null());
    if (chosen && !at(wanted, "budget").is_null()) CHECK_EQ(chosen->budget->name, text(at(wanted, "budget")));
  }
}

TEST(choose_explains_without_steering_a_terminal) {
  BudgetEntry budget;
  budget.name = "\xE2\x80\xAEsmall\x1b[2J";
  CHECK_EQ(choose({budget}, {kGib, 1, 1, {}}).explain(),
           "1.0 GiB, 1 tokens x 1:\n  \\u202esmall\\x1b[2J: no engine");
}

TEST(choose_warns_of_engines_that_no_card_has_run) {
  EngineEntry engine;
  engine.file = "small/rtx.engine";
  engine.status.state = "built";
  CHECK_EQ(untested(engine),
           "small/rtx.engine was built, and its manifest names no card that has run it: `elastic-run BUNDLE "
           "--verify --require-engine` tries it on this one, and leaves the manifest as it is");
  engine.status.state = "verified";
  CHECK_EQ(untested(engine), "");
}

TEST(choose_refuses_nothing_asked) {
  const std::vector<BudgetEntry> none;
  CHECK_EQ(std::string(THROWN(InputError, choose(none, {0, 1, 1, {}})).what()),
           "vram: expected at least 1, found 0.");
  CHECK_EQ(std::string(THROWN(InputError, choose(none, {1, 0, 1, {}})).what()),
           "context: expected at least 1, found 0.");
  CHECK_EQ(std::string(THROWN(InputError, choose(none, {1, 1, -1, {}})).what()),
           "batch: expected at least 1, found -1.");
}

TEST(choose_absurd_sizes_never_fit) {
  BudgetEntry budget;
  budget.name = "absurd";
  budget.weight_bytes = budget.state_bytes = budget.kv_bytes_per_token = (std::int64_t{1} << 53) - 1;
  EngineEntry engine;
  engine.max_context = engine.max_batch = std::int64_t{1} << 40;
  budget.engines = {engine};
  CHECK(!choose({budget}, {kGib, 1, std::int64_t{1} << 40, {}}).chosen());
}

TEST(choose_sizes_equal_python) {
  const Value file = golden("choose.json");
  for (const Value& wanted : items(at(file, "sizes"))) {
    const std::string written = text(at(wanted, "text"));
    if (at(wanted, "error").is_null()) {
      CHECK_EQ(parse_bytes(written, "--vram"), integer(at(wanted, "bytes")));
    } else {
      const InputError error = THROWN(InputError, parse_bytes(written, "--vram"));
      const std::string said = error.subject + ": expected " + error.expected + ", found '";
      CHECK_EQ(said, text(at(wanted, "error")).substr(0, said.size() - 1) + "'");
    }
  }
}
