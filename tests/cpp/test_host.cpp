// What fits the main memory, and what is read of the system for it.
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "check.h"
#include "driver/system.h"
#include "elastic_runtime/bundle.h"
#include "elastic_runtime/onnx_backend.h"
#include "elastic_runtime/opening.h"
#include "elastic_runtime/sha256.h"
#include "files.h"
#include "ort/host_memory.h"
#include "request_sizes.h"

using namespace elastic;
using namespace elastic_test;
namespace fs = std::filesystem;

namespace {

/// The small manifest of errors.json on disk, its weights embedded or one input of 3 x 4. Its states are 48
/// bytes of a convolution's in the bundle's precision and 128 of SSM in float32.
Bundle make_bundle(bool embedded, const std::string& precision = "bf16") {
  const fs::path folder = scratch("host");
  fs::create_directories(folder / "small");
  std::string manifest = text(at(at(golden("errors.json"), "manifest"), "base"));
  const auto replace = [&](const std::string& from, const std::string& to) {
    manifest.replace(manifest.find(from), from.size(), to);
  };
  replace("\"precision\": \"bf16\"", "\"precision\": \"" + precision + "\"");
  replace("\"state_bytes\": 2,", "\"state_bytes\": 176,");
  if (!embedded) {
    replace("\"weights\": null, \"golden\"",
            "\"weights\": \"small/a.engine\", \"golden\"");  // any listed file
  }
  const std::string recipe =
      R"({"schema": "elastic-weights/1", "inputs": {"w": {"file": "w.bin", "offset": 0, "dtype": "bf16", "parent_shape": [6, 4], )"
      R"("shape": [3, 4], "runs": [[[0, 3]], [[0, 4]]]}}})";
  const std::string engine = embedded ? std::string(17, 'e') : recipe, model(18, 'm');
  replace("\"size\": 17", "\"size\": " + std::to_string(engine.size()));
  std::ofstream(folder / "small/a.engine", std::ios::binary) << engine;
  std::ofstream(folder / "small/model.onnx", std::ios::binary) << model;
  for (const auto& [path, data] :
       {std::pair("small/a.engine", engine), std::pair("small/model.onnx", model)}) {
    const auto place =
        manifest.find("\"sha256\": \"", manifest.find("\"path\": \"" + std::string(path))) + 11;
    manifest.replace(place, 64, sha256(data));
  }
  std::ofstream(folder / "manifest.json", std::ios::binary) << reseal(manifest);
  return Bundle::open(folder);
}

constexpr std::int64_t kArena = 268435456;

}  // namespace

TEST(host_memory_is_reckoned_from_the_recipe) {
  const Bundle bundle = make_bundle(false);
  // 24 bytes as stored, 48 in float32 once more; for each of two rows two banks of states: SSM as it is, the
  // convolution's and a cache of 3 for each of 10 tokens widened
  CHECK_EQ(host_bytes(bundle, bundle.budget("small"), 10, 2),
           24 + 48 + 2 * 2 * (128 + 2 * (48 + 3 * 10)) + kArena);
}

TEST(host_memory_of_embedded_weights_is_that_of_float32) {
  const Bundle bundle = make_bundle(true);
  CHECK_EQ(host_bytes(bundle, bundle.budget("small"), 10), 4 * 100 + 2 * (128 + 2 * (48 + 3 * 10)) + kArena);
}

TEST(host_memory_of_float32_states_does_not_double) {
  const Bundle bundle = make_bundle(true, "fp32");
  CHECK_EQ(host_bytes(bundle, bundle.budget("small"), 10), 4 * 100 + 2 * (176 + 3 * 10) + kArena);
}

TEST(host_memory_equals_python) {
  const Value file = golden("choose.json");
  const Manifest manifest = parse_manifest(golden_text(text(at(file, "manifest"))));
  for (const Value& wanted : items(at(file, "host"))) {
    for (const BudgetEntry& budget : manifest.budgets) {
      if (budget.name != text(at(wanted, "budget"))) continue;
      CHECK_EQ(host_bytes(budget, nullptr, text(at(wanted, "precision")), integer(at(wanted, "context")),
                          integer(at(wanted, "batch"))),
               integer(at(wanted, "bytes")));
    }
  }
}

TEST(host_memory_of_weights_in_eight_bits_equals_python) {
  const Value file = golden("slices_int8.json");
  const WeightRecipe recipe = parse_recipe(at(file, "recipe").dump());
  const BudgetEntry budget = parse_manifest(golden_text("manifest_12b.json")).budgets.back();
  CHECK(!items(at(file, "host")).empty());
  for (const Value& wanted : items(at(file, "host"))) {
    CHECK_EQ(host_bytes(budget, &recipe, text(at(wanted, "precision")), integer(at(wanted, "context")),
                        integer(at(wanted, "batch"))),
             integer(at(wanted, "bytes")));
  }
}

TEST(host_the_largest_that_fits_is_chosen) {
  const Bundle bundle = make_bundle(true);
  const BudgetEntry& budget = bundle.budget("small");
  const std::int64_t need = host_bytes(bundle, budget, 10);
  CHECK_EQ(choose_on_host(bundle, 10, 1, need).name, "small");
  CHECK_EQ(choose_on_host(bundle, 10, 1, need - 1).name, "small");  // none fits: opening it says so
  check_host_memory(bundle, budget, 10, 1, need);
  const UnavailableError error = THROWN(UnavailableError, check_host_memory(bundle, budget, 10, 1, need - 1));
  CHECK_EQ(std::string(error.what()),
           "budget 'small' on the CPU: expected 0.3 GiB of free memory (float32 arithmetic, weights as "
           "stored), found "
           "0.3 GiB. Take a smaller budget or context, or run its engine on a card.");
  CHECK_EQ(error.exit_code(), 1);
  BudgetEntry larger = budget;
  larger.name = "large";
  larger.parameters *= 10;
  CHECK_EQ(THROWN(UnavailableError, check_host_memory(bundle, larger, 10, 1, need)).todo,
           "take the budget small, which fits, a smaller context, or run its engine on a card");
}

TEST(host_sizes_have_the_bounds_of_python) {
  const Bundle bundle = make_bundle(true);
  const auto refused = [&](auto change) {
    OpenRequest request;
    request.place = RunOn::kCpu;
    change(request);
    return std::string(THROWN(InputError, place_of(bundle, request)).what());
  };
  const std::map<std::string, std::function<void(OpenRequest&, std::int64_t)>> sizes = {
      {"vram", [](OpenRequest& r, std::int64_t size) { r.vram = size; }},
      {"context", [](OpenRequest& r, std::int64_t size) { r.context = size; }},
      {"batch", [](OpenRequest& r, std::int64_t size) { r.batch = size; }},
      {"threads", [](OpenRequest& r, std::int64_t size) { r.host.threads = size; }},
  };
  const Value bounds = golden("bounds.json");
  CHECK_EQ(bounds.size(), sizes.size());
  for (const auto& [name, set] : sizes) {
    const std::int64_t least = integer(items(at(bounds, name))[0]),
                       most = integer(items(at(bounds, name))[1]);
    for (const std::int64_t size : {least, most}) {
      OpenRequest request;
      set(request, size);
      check_sizes(request);
    }
    CHECK_EQ(refused([&, &set = set](OpenRequest& r) { set(r, least - 1); }),
             name + ": expected at least " + std::to_string(least) + ", found " + std::to_string(least - 1) +
                 ". Name a larger one.");
    CHECK_EQ(refused([&, &set = set](OpenRequest& r) { set(r, most + 1); }),
             name + ": expected at most " + std::to_string(most) + ", found more. Name a smaller one.");
  }
  const std::string low = ": expected at least 1, found 0. Name a larger one.";
  CHECK_EQ(refused([](OpenRequest& r) { r.host.max_context = 0; }), "max_context" + low);
  CHECK_EQ(refused([](OpenRequest& r) { r.host.max_tokens = 0; }), "max_tokens" + low);
  OnnxOptions options;
  options.max_batch = 0;
  if (has_onnx_backend())
    CHECK_EQ(
        std::string(THROWN(InputError, make_onnx_backend(bundle, bundle.budget("small"), options)).what()),
        "max_batch" + low);
}

TEST(host_free_memory_is_read) {
  CHECK_EQ(available_of("MemTotal: 8 kB\nMemAvailable:     1234 kB\nBuffers: 1 kB\n"), 1234 * 1024);
  CHECK_EQ(available_of("MemTotal: 8 kB\n"), kMost);
  CHECK_EQ(available_of("MemAvailable:"), kMost);
  CHECK_EQ(available_of("MemAvailable: many kB"), kMost);
  CHECK_EQ(left_of("1000\n", "400\n", "anon 9\n"), 600);
  CHECK_EQ(left_of("1000\n", "400\n", "anon 9\ninactive_file 30\nactive_file 200\n"), 830);
  CHECK_EQ(left_of("max\n", "400\n", "active_file 200\n"), kMost);
  CHECK_EQ(left_of("", "", ""), kMost);
  CHECK_EQ(left_of("400", "1000", ""), 0);
  CHECK_EQ(free_ram_of(scratch("nothing")), kMost);
  CHECK(free_ram() > 0);
  CHECK(process_id() > 0);
}

TEST(host_the_tightest_of_nested_groups_decides) {
  const fs::path root = scratch("groups");
  const auto put = [&](const char* path, const std::string& text) {
    fs::create_directories((root / path).parent_path());
    std::ofstream(root / path, std::ios::binary) << text;
  };
  const auto limit = [&](const std::string& group, const char* most, const char* used, const char* stat) {
    const std::string folder = "sys/fs/cgroup/" + group + "/";
    put((folder + "memory.max").c_str(), most);
    put((folder + "memory.current").c_str(), used);
    put((folder + "memory.stat").c_str(), stat);
  };
  put("proc/meminfo", "MemAvailable: 9 kB\n");
  put("proc/self/cgroup", "1:name=systemd:/other\n0::/user.slice/../job/step\n");
  CHECK_EQ(free_ram_of(root), 9 * 1024);
  limit("user.slice/job/step", "max\n", "1000\n", "");
  limit("user.slice/job", "8000\n", "3000\n", "anon 1\n");
  limit("user.slice", "7000\n", "6000\n", "inactive_file 3000\nactive_file 500\n");
  limit("elsewhere", "10\n", "0\n", "");
  CHECK_EQ(free_ram_of(root), 4500);
  limit("", "6000\n", "2000\n", "");
  CHECK_EQ(free_ram_of(root), 4000);
  fs::remove(root / "sys/fs/cgroup/memory.stat");  // not to be seen whole: passed over
  CHECK_EQ(free_ram_of(root), 4500);
}

TEST(host_a_file_is_replaced_whole_or_not_at_all) {
  const fs::path folder = scratch("replace");
  const fs::path path = folder / "cache";
  CHECK(replace_file(path, "old", 3));
  CHECK(replace_file(path, "newer", 5));
  CHECK_EQ(read_bytes(path, 100, "a file"), "newer");
  CHECK(!replace_file(folder / "no" / "such" / "cache", "x", 1));
  fs::create_directories(folder / "taken" / "below");
  CHECK(!replace_file(folder / "taken", "x", 1));  // a folder of that name stays
  CHECK_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()),
           2);  // nothing is left beside
}

TEST(host_a_card_takes_whole_weights_two_banks_of_states_and_a_margin) {
  const Bundle bundle = make_bundle(false);
  const BudgetEntry& budget = bundle.budget("small");
  const std::int64_t need = 24 + 48 + 2 * 2 * (128 + 2 * (48 + 3 * 10)) + 1610612736;
  CHECK_EQ(card_bytes(bundle, budget, 10, 2), need);
  check_card_memory(bundle, budget, 10, 2, {"a card", "12.0", need, need});
  const UnavailableError error =
      THROWN(UnavailableError, check_card_memory(bundle, budget, 10, 2, {"a card", "12.0", need - 1, need}));
  CHECK_EQ(error.subject, "budget 'small' under onnxruntime on a card");
  CHECK_EQ(choose_on_card(bundle, 10, 2, {"a card", "12.0", 0, 0}).name, "small");
}
