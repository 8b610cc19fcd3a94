// What of a bundle runs where it lands, and what is said: opening.h on the stand-in card.
#include <NvInferRuntime.h>

#include <filesystem>
#include <fstream>

#include "check.h"
#include "device_bundle.h"
#include "elastic_runtime/opening.h"
#include "elastic_runtime/plugin_library.h"
#include "elastic_runtime/sha256.h"
#include "fake_sdk.h"

using namespace elastic;
using namespace elastic_test;
namespace fs = std::filesystem;

namespace {

/// As an export with --ops auto leaves them: a plugin engine and a native one.
Bundle default_bundle(const std::string& library = library_bytes()) {
  return make_bundle({{"b/p.engine", "engine of plugins"}, {"b/n.engine", "engine", "null"}}, library);
}

struct Heard {
  std::vector<std::string> all;

  Say say() {
    return [this](const std::string& text) { all.push_back(text); };
  }

  /// Those about where it runs, not of the engine that does.
  std::vector<std::string> of_places() const {
    std::vector<std::string> found;
    for (const std::string& text : all) {
      if (text.rfind("warning: ", 0) == 0 || text.find("running on") != std::string::npos)
        found.push_back(text);
    }
    return found;
  }
};

std::string name_of(const Placement& placement) { return placement.engine ? placement.engine->file : "cpu"; }

OpenRequest request_with(const std::optional<fs::path>& plugins, RunOn place = RunOn::kAuto) {
  OpenRequest request;
  request.place = place;
  request.card.plugins = plugins;
  request.card.runtime_cache = fs::path(scratch("kernels")) / "a.cache";
  return request;
}

/// The engine that serves, and a sentence about it; the error that it ends with.
std::string landed(const Bundle& bundle, const OpenRequest& request, Heard& heard) {
  try {
    return name_of(open_backend(bundle, request, heard.say()).placement);
  } catch (const Error& error) {
    return error.subject + " (" + std::to_string(error.exit_code()) + ")";
  }
}

const std::string kOnCpu = "running on the CPU with onnxruntime, in float32 arithmetic";

/// Why onnxruntime does not take the card, as it is said of the CPU.
std::string not_on_card() {
  return "; on the card it expected a CUDA execution provider that works, found " +
         THROWN(UnavailableError, check_onnx_card()).found;
}

/// Of a card that was asked for by name: onnxruntime does not take it, and `engines` is why none of them
/// does.
bool says_no_engine(const Error& error, const std::string& engines) {
  return error.subject == "onnxruntime on a card" &&
         error.found.find("; no engine runs here: " + engines) != std::string::npos;
}

const char kInPlace[] = "warning: b/n.engine in place of b/p.engine: ";

}  // namespace

TEST(landing_the_plugin_engine_runs_where_its_library_is) {
  const Bundle bundle = default_bundle();
  Heard heard;
  CHECK_EQ(landed(bundle, request_with(bundle.path()), heard), "b/p.engine");
  CHECK_EQ(fs::path(fake::state().plugin).filename().string(), "libelastic_plugins.so");
  CHECK(heard.of_places().empty());
}

TEST(landing_a_native_engine_takes_its_place_without_one_and_stays_on_the_card) {
  for (const RunOn place : {RunOn::kAuto, RunOn::kGpu}) {
    const Bundle bundle =
        default_bundle();  // a library lies in it, as a stranger may pack one: nobody looks there
    Heard heard;
    CHECK_EQ(landed(bundle, request_with(std::nullopt, place), heard), "b/n.engine");
    CHECK_EQ(fake::state().plugin, "");
    CHECK_EQ(heard.of_places().size(), 1u);
    CHECK_EQ(heard.of_places().at(0),
             std::string(kInPlace) +
                 "libelastic_plugins.so: expected a folder of plugin libraries, found none named. Install "
                 "elastic-plugins, or build plugins/ with CMake, and name the folder of its libraries with "
                 "--plugins.");
  }
}

TEST(landing_a_library_that_does_not_fit_is_said_and_one_that_is_none_ends_it) {
  const std::pair<std::string, std::string> kUnfit[] = {
      {library_bytes("rtx-1.6"), "expected libraries for rtx-1.7, found those for rtx-1.6"},
      {library_bytes("rtx-1.7", "90-real,89-real"),
       "expected a library for compute capability 12.0, found code for 89-real, 90-real"}};
  Heard heard;
  for (const auto& [library, why] : kUnfit) {
    const Bundle bundle = default_bundle(library);
    heard.all.clear();
    CHECK_EQ(landed(bundle, request_with(bundle.path()), heard), "b/n.engine");
    CHECK(heard.of_places().at(0).find(bundle.path().generic_string() + ": " + why) != std::string::npos);
  }
  const Bundle bundle = default_bundle("no mark");
  CHECK_EQ(landed(bundle, request_with(bundle.path()), heard),
           (bundle.path() / "libelastic_plugins.so").generic_string() + " (2)");
  const fs::path empty = scratch("empty_plugins");
  const InputError error = THROWN(InputError, open_backend(bundle, request_with(empty)));
  CHECK_EQ(error.expected + "|" + error.found, "libraries.json or a library of elastic plugins|no such file");
}

TEST(landing_a_library_is_the_one_that_its_folder_describes) {
  const Bundle bundle = default_bundle();
  const fs::path folder = scratch("described");
  const std::string small = library_bytes(), fat = library_bytes() + "fat";
  const auto entry = [](const std::string& file, const std::string& data, const std::string& architectures) {
    return "{\"file\": \"" + file + "\", \"size\": " + std::to_string(data.size()) + ", \"sha256\": \"" +
           sha256(data) + "\", \"architectures\": [" + architectures + "]}";
  };
  std::ofstream(folder / "small.so", std::ios::binary) << small;
  std::ofstream(folder / "fat.so", std::ios::binary) << fat;
  const auto describe = [&](const std::string& entries, const std::string& schema = "elastic-plugins/1") {
    std::ofstream(folder / "libraries.json", std::ios::binary)
        << "{\"schema\": \"" + schema +
               "\", \"version\": \"0.1.0\", \"abi\": \"enterprise-11.1\", \"cuda\": \"13.0\", "
               "\"libraries\": [" +
               entries + "]}";
  };
  describe(entry("fat.so", fat, R"("89-real", "120")") + ", " + entry("small.so", small, R"("120-real")"));
  Heard heard;
  CHECK_EQ(landed(bundle, request_with(folder), heard), "b/p.engine");
  CHECK_EQ(fs::path(fake::state().plugin).filename().string(), "small.so");
  std::ofstream(folder / "small.so", std::ios::binary) << fat;  // swapped: damage, not a reason to go on
  const BuildError swapped = THROWN(BuildError, open_backend(bundle, request_with(folder)));
  CHECK_EQ(swapped.subject, (folder / "small.so").generic_string());
  CHECK_EQ(swapped.expected, "sha256 " + sha256(small).substr(0, 12) + "\u2026, as its libraries.json says");
  CHECK_EQ(swapped.found, sha256(fat).substr(0, 12) + "\u2026");
  fs::remove(folder / "small.so");
  CHECK_EQ(THROWN(BuildError, open_backend(bundle, request_with(folder))).exit_code(), 1);
  for (const char* file : {"../small.so", "/lib/small.so"}) {
    describe(entry(file, small, R"("120-real")"));
    CHECK_EQ(THROWN(InputError, open_backend(bundle, request_with(folder))).expected,
             "a plain file name, without / \\ : < > \" | ? * and control characters");
  }
  describe("", "elastic-plugins/2");
  CHECK_EQ(THROWN(InputError, open_backend(bundle, request_with(folder))).expected, "'elastic-plugins/1'");
}

TEST(landing_architectures_serve_cards_as_cuda_says) {
  const std::pair<const char*, bool> kArchitectures[] = {
      {"120-real", true}, {"120", true}, {"121-real", false},  {"89-virtual", true},
      {"89-real", false}, {"89", true},  {"native", true},     {"all-major", true},
      {"none", false},    {"", false},   {"75-virtual", true}, {"130-virtual", false}};
  for (const auto& [architectures, serves] : kArchitectures) {
    const Bundle bundle = default_bundle(library_bytes("rtx-1.7", architectures));
    Heard heard;
    CHECK_EQ(std::string(architectures) + " " + landed(bundle, request_with(bundle.path()), heard),
             std::string(architectures) + (serves ? " b/p.engine" : " b/n.engine"));
  }
}

TEST(landing_then_the_cpu_unless_the_card_was_asked_for) {
  const Bundle bundle = make_bundle({{"b/p.engine", "engine"}});
  Heard heard;
  CHECK_EQ(name_of(place_of(bundle, request_with(std::nullopt), heard.say())), "cpu");
  CHECK_EQ(heard.all.size(), 1u);
  CHECK_EQ(heard.all.at(0).rfind(
               "Fake RTX: " + kOnCpu + not_on_card() + "; no engine runs here: libelastic_plugins.so: ", 0),
           0u);
  const UnavailableError error =
      THROWN(UnavailableError, place_of(bundle, request_with(std::nullopt, RunOn::kGpu)));
  CHECK(says_no_engine(error, "libelastic_plugins.so: expected "));
  heard.all.clear();
  CHECK_EQ(name_of(place_of(bundle, request_with(bundle.path(), RunOn::kCpu), heard.say())), "cpu");
  CHECK(heard.all.empty());
}

TEST(landing_says_why_there_is_no_card) {
  const Bundle bundle = default_bundle();
  const auto said = [&] {
    Heard heard;
    CHECK_EQ(name_of(place_of(bundle, request_with(std::nullopt), heard.say())), "cpu");
    CHECK_EQ(THROWN(UnavailableError, place_of(bundle, request_with(std::nullopt, RunOn::kGpu))).subject,
             fake::state().major == 9 ? "onnxruntime on a card" : "device gpu");
    fake::state() = {};
    return heard.all.at(0);
  };
  fake::state().has_driver = false;
  CHECK_EQ(said(), std::string("no NVIDIA card here: ") + kOnCpu);
  fake::state().nvml_error = 18;
  CHECK_EQ(said(),
           std::string("no NVIDIA card here: ") + kOnCpu +
               "; GPU memory: expected the NVIDIA driver to start, found a driver and a library of different "
               "versions (NVML error 18). Restart the machine, which loads the driver that was installed.");
  fake::state().major = 9;
  CHECK_EQ(said(), std::string("Fake RTX has compute capability 9.0, the engines are for 12.0, 8.9: ") +
                       kOnCpu + not_on_card());
}

TEST(landing_what_no_engine_runs_for_is_said_of_the_best) {
  const Bundle bundle = default_bundle();
  const auto said = [&](const std::string& wanted) {
    Heard heard;
    const Placement placement = place_of(bundle, request_with(bundle.path()), heard.say());
    const bool has = heard.all.at(0).find("no engine runs here: " + wanted) != std::string::npos;
    CHECK_EQ(has ? wanted : heard.all.at(0), wanted);
    CHECK_EQ(name_of(placement), "cpu");
    fake::state() = {};
  };
  fake::state().driver = 12080;
  said("b/p.engine: expected a driver that runs CUDA 13, found one for CUDA 12.8. Update NVIDIA's driver.");
  fake::state().version[1] = 8;
  said("b/p.engine: expected tensorrt-rtx 1.7.1, found tensorrt-rtx 1.8.1.");
  fake::state().free_bytes = 600 << 20;
  said("bundle: expected a budget that fits, found none. See:\n0.6 GiB");
}

TEST(landing_an_engine_that_only_loading_shows_not_to_run_is_left_as_well) {
  const Bundle bundle = default_bundle();
  fake::state().refused = "engine of plugins";
  Heard heard;
  CHECK_EQ(landed(bundle, request_with(bundle.path()), heard), "b/n.engine");
  CHECK_EQ(heard.of_places().at(0),
           std::string(kInPlace) +
               "b/p.engine: expected an engine that TensorRT-RTX can run here, found a driver "
               "that is too old. Update NVIDIA's driver.");
  fake::state() = {};
  fake::state().refuses_plugins = true;  // a native engine needs none
  CHECK_EQ(landed(bundle, request_with(bundle.path()), heard), "b/n.engine");
  fake::state() = {};
  fake::state().validity = 2;
  heard.all.clear();
  CHECK_EQ(landed(bundle, request_with(bundle.path(), RunOn::kGpu), heard), "onnxruntime on a card (1)");
  const std::string on_cpu =
      landed(bundle, request_with(bundle.path()), heard);  // whose model is no model here
  CHECK(on_cpu == "onnxruntime (1)");
  CHECK(heard.of_places().back().find(
            "no engine runs here: b/p.engine: expected an engine that TensorRT-RTX can run") !=
        std::string::npos);
  CHECK_EQ(fake::state().live_allocations, 0);
}

TEST(landing_a_library_inside_an_engine_runs_where_it_is_known_or_vouched_for) {
  const std::string library = library_bytes(), other = library_bytes("rtx-1.7", "89-real");
  const std::string plugin =
      R"({"library": "libelastic_plugins.so", "abi": "rtx-1.7", "carried": {"file": "a.so", "size": )" +
      std::to_string(library.size()) + R"(, "sha256": ")" + sha256(library) +
      R"(", "abi": "rtx-1.7", "architectures": ["120-real"]}})";
  const auto carrying = [&](const std::string& inside, const std::string& lying_about = "") {
    return make_bundle({{"a.engine", "engine" + inside, plugin}},
                       lying_about.empty() ? library : lying_about);
  };
  const auto open = [&](const Bundle& bundle, const std::optional<fs::path>& folder, bool trusted) {
    OpenRequest request = request_with(folder, RunOn::kGpu);
    request.card.trust_engine = trusted;
    return name_of(open_backend(bundle, request).placement);
  };
  const Bundle bundle = carrying(library);
  CHECK_EQ(open(bundle, std::nullopt, true), "a.engine");
  CHECK_EQ(open(bundle, bundle.path(), false), "a.engine");  // the folder's library is that one
  CHECK_EQ(fake::state().plugin, "");                        // and TensorRT takes a plugin's name once
  const UnavailableError unknown = THROWN(UnavailableError, open(bundle, std::nullopt, false));
  CHECK(says_no_engine(unknown, "a.engine: expected a plugin library in it that is known here"));
  CHECK(unknown.found.find("no folder of libraries was named") != std::string::npos);
  const Bundle strange = carrying(library, other);
  CHECK(THROWN(UnavailableError, open(strange, strange.path(), false)).found.find("knows others") !=
        std::string::npos);
  for (const std::string& inside : {other, library + other, std::string()}) {
    const DamageError swapped = THROWN(DamageError, open(carrying(inside), std::nullopt, true));
    CHECK_EQ(swapped.todo, "do not run it: get the bundle from where it was made");
    CHECK_EQ(fake::state().judged, "");  // TensorRT did not see it
  }
  const Bundle native = make_bundle({{"a.engine", "engine" + library, "null"}});
  CHECK_EQ(THROWN(DamageError, open(native, std::nullopt, true)).found, "other code at byte 6");
}

TEST(landing_memory_that_was_named_is_the_most_that_is_taken) {
  const Bundle bundle = default_bundle();
  OpenRequest request = request_with(bundle.path());
  request.place = RunOn::kGpu;
  request.vram = 600 << 20;  // of 8 GiB
  CHECK(says_no_engine(THROWN(UnavailableError, place_of(bundle, request)),
                       "bundle: expected a budget that fits"));
  request.budget = "b";
  CHECK(
      says_no_engine(THROWN(UnavailableError, place_of(bundle, request)), "budget 'b': expected an engine"));
  request.vram = std::int64_t{64} << 30;  // more than there is
  fake::state().free_bytes = 600 << 20;
  CHECK(
      says_no_engine(THROWN(UnavailableError, place_of(bundle, request)), "budget 'b': expected an engine"));
  request.budget = "c";
  CHECK_EQ(THROWN(InputError, place_of(bundle, request)).found, "no such budget in the bundle");
}

TEST(landing_a_budget_without_room_on_the_cpu_says_how_much_it_takes) {
  const Bundle bundle = default_bundle();
  OpenRequest request = request_with(std::nullopt, RunOn::kCpu);
  request.context = std::int64_t{1} << 45;
  CHECK_EQ(THROWN(UnavailableError, place_of(bundle, request)).subject, "budget 'b' on the CPU");
}
