// Every malformed file of errors.json is refused as in Python: by the same kind of error, about the same
// subject. What was found is said in each language's own words.
#include <cerrno>
#include <string>
#include <utility>

#include "check.h"
#include "elastic_runtime/manifest.h"
#include "elastic_runtime/weights.h"
#include "files.h"

using namespace elastic;
using namespace elastic_test;

namespace {

std::string edited(const Value& group, const Value& wanted) {
  std::string base = text(at(group, "base"));
  const std::string from = text(at(wanted, "replace"));
  const auto place = base.find(from);
  if (place == std::string::npos) throw std::runtime_error("nothing to replace: " + from);
  return base.replace(place, from.size(), text(at(wanted, "by")));
}

template <typename Read>
void check_group(const char* name, Read&& read) {
  const Value file = golden("errors.json");
  const Value& group = at(file, name);
  for (const Value& wanted : items(at(group, "cases"))) {
    std::string subject, expected, todo;
    int exit_code = 0;
    try {
      read(edited(group, wanted));
    } catch (const Error& error) {
      subject = error.subject, expected = error.expected, todo = error.todo, exit_code = error.exit_code();
      CHECK(!error.found.empty());
    }
    const std::string edit = " of " + text(at(wanted, "by"));
    CHECK_EQ(subject + edit, text(at(wanted, "subject")) + edit);
    CHECK_EQ(expected + edit, text(at(wanted, "expected")) + edit);
    CHECK_EQ(todo, text(at(wanted, "todo")));
    CHECK_EQ(exit_code, integer(at(wanted, "exit")));
  }
}

}  // namespace

TEST(errors_manifest) {
  check_group("manifest", [](const std::string& data) { parse_manifest(reseal(data)); });
}

TEST(errors_manifest_widths_of_later_layer_kinds) {
  const std::string base = text(at(at(golden("errors.json"), "manifest"), "base"));
  const auto with = [&](const std::string& field) {
    const std::string from = "\"conv_kernel\": 4";
    std::string data = base;
    return parse_manifest(reseal(data.replace(data.find(from), from.size(), from + ", " + field)));
  };
  CHECK_EQ(with("\"gated_sizes\": [24, 16], \"experts\": 8").budgets.at(0).widths.conv_kernel, 4);
  const auto found = [&](const std::string& field) {
    const InputError error = THROWN(InputError, with(field));
    return error.subject + " " + error.found;
  };
  CHECK_EQ(found("\"gated_sizes\": [24, -1]"), "manifest.json.budgets[0].widths.gated_sizes[1] -1");
  CHECK_EQ(found("\"experts\": \"8\""), "manifest.json.budgets[0].widths.experts 8");
}

TEST(errors_manifest_seal) {
  check_group("seal", [](const std::string& data) { parse_manifest(data); });
}

TEST(errors_weights) {
  check_group("weights", [](const std::string& data) { parse_recipe(data); });
}

TEST(errors_json) {
  check_group("json", [](const std::string& data) { parse_json(data, "x.json"); });
}

TEST(errors_json_of_others) {
  check_group("json of others", [](const std::string& data) { parse_json(data, "x.json", Numbers::kAny); });
}

TEST(errors_of_a_seal_below_the_top_level) {
  const std::string forged =
      reseal(R"({"schema": "elastic-bundle/1", "x": {"seal": ")" + std::string(64, '0') + "\"}}");
  CHECK_EQ(THROWN(InputError, parse_manifest(forged)).expected, "the field 'producer'");
}

TEST(errors_do_not_steer_a_terminal) {
  const InputError error("a\x1b[2Jb", "\xC2\x9B", "x\x07\xE2\x80\xAEy", "");
  CHECK_EQ(std::string(error.what()), "a\\x1b[2Jb: expected \\x9b, found x\\x07\\u202ey.");
  CHECK_EQ(printable("line\nline \xC3\xA9 \xE4\xBD\xA0"), "line\nline \xC3\xA9 \xE4\xBD\xA0");
  CHECK_EQ(printable("\xF1\x1b[A"), "\xF1\\x1b[A");  // a broken sequence hides nothing
  CHECK_EQ(printable("\xC0\x9B"), "\\x1b");          // nor does an overlong one
}

TEST(errors_have_their_text) {
  const InputError error("weights.json", "an object", "None", "export it again");
  CHECK_EQ(std::string(error.what()), "weights.json: expected an object, found None. Export it again.");
  CHECK_EQ(error.exit_code(), 2);
  CHECK_EQ(DamageError("a", "b", "c").exit_code(), 1);
}

TEST(errors_of_the_system_come_with_the_advice_of_python) {
  const std::pair<int, const char*> advice[] = {
      {EACCES, "change who may use it, or name another place"},
      {EIO, "see that its disk is sound and still mounted"},
      {ENODEV, "see that its disk is sound and still mounted"},
      {ENAMETOOLONG, "name a shorter path"},
      {ELOOP, "name a path of folders, without links in a circle"},
      {ENOTDIR, "name a path of folders, without links in a circle"},
      {ETXTBSY, "end the program that uses it"},
      {EMFILE, "raise the limit of open files (ulimit -n)"},
      {ENOMEM, "close other programs"},
      {ENOENT, ""},
  };
#ifdef EREMOTEIO
  CHECK_EQ(advice_on(EREMOTEIO), std::string("see that its disk is sound and still mounted"));
#endif
  for (const auto& [error, todo] : advice) CHECK_EQ(advice_on(error), std::string(todo));
}
