// The TensorRT backend's own logic, against stand-ins for the SDKs: no GPU, no SDK.
#include <NvInferRuntime.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>
#include <tuple>

#include "check.h"
#include "device_bundle.h"
#include "elastic_runtime/bundle.h"
#include "elastic_runtime/generate.h"
#include "elastic_runtime/plugin_library.h"
#include "elastic_runtime/tensorrt_backend.h"
#include "fake_sdk.h"
#include "tensorrt/call_size.h"

using namespace elastic;
using namespace elastic_test;
namespace fs = std::filesystem;
using Rows = std::vector<std::vector<std::int64_t>>;

TEST(device_prefill_decode_and_graphs) {
  const Bundle bundle = make_bundle();
  {
    Session session(backend_of(bundle));
    CHECK_EQ(fs::path(fake::state().plugin).filename().string(), "libelastic_plugins.so");
    drive(session);
    // The prefill of 4; then once per side, before that side has its graph.
    CHECK_EQ(fake::state().enqueued, 3);
    CHECK_EQ(fake::state().replayed, 9);
    session.reset();
    drive(session);  // states are gone, graphs stay
    CHECK_EQ(fake::state().enqueued, 4);
  }
  CHECK_EQ(fake::state().live_allocations, 0);
}

TEST(device_without_graphs) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.cuda_graph = false;
  Session session(backend_of(bundle, options));
  drive(session);
  CHECK_EQ(fake::state().replayed, 0);
  fake::state().can_capture = false;
  std::vector<std::string> heard;
  options.cuda_graph = true;
  options.warn = [&](const std::string& text) { heard.push_back(text); };
  Session other(backend_of(bundle, options));
  heard.clear();  // of the opening
  drive(other);
  other.reset();
  drive(other);
  CHECK_EQ(fake::state().replayed, 0);
  CHECK_EQ(heard.size(), 1u);
  CHECK_EQ(heard.at(0), "decode steps run without CUDA graphs, which is slower: an error");
}

TEST(device_leaves_graphs_to_tensorrt_and_compiles_decode_first) {
  const Bundle bundle = make_bundle();
  fake::state().replays_itself = true;
  Session session(backend_of(bundle));
  drive(session);
  CHECK_EQ(fake::state().replayed, 0);
  const std::vector<int> eager_eager_lazy = {1, 1, 0};
  CHECK(fake::state().kernels == eager_eager_lazy);
}

TEST(device_says_once_that_an_engine_cannot_be_recorded) {
  for (const bool itself : {false, true}) {
    const Bundle bundle = make_bundle();
    fake::state().replays_itself = itself;
    fake::state().recordable = false;
    std::vector<std::string> heard;
    TensorRtOptions options;
    options.warn = [&](const std::string& text) { heard.push_back(text); };
    Session session(backend_of(bundle, options));
    heard.clear();  // of the opening
    drive(session);
    session.reset();
    drive(session);
    CHECK_EQ(fake::state().replayed, 0);
    CHECK_EQ(heard.size(), 1u);
    CHECK_EQ(heard.at(0),
             "decode steps run without CUDA graphs, which is slower: the engine cannot be recorded");
  }
}

TEST(device_prompts_are_run_in_a_few_lengths) {
  const Value file = golden("call_size.json");
  for (const Value& wanted : items(at(file, "cases"))) {
    const auto number = [&](const char* name) { return integer(at(wanted, name)); };
    CHECK_EQ(engine_call_size(number("wanted"), number("most"), number("max_tokens")), number("size"));
  }
  const Bundle bundle = make_bundle();
  const auto backend = backend_of(bundle);
  CHECK_EQ(backend->call_size(3, 20), 4);
  CHECK_EQ(backend->call_size(3, 3), 1);
}

TEST(device_batches_of_unlike_rows) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.max_batch = 3;
  Session session(backend_of(bundle, options));
  session.reset(2);
  for (int round = 0; round < 2; ++round) {
    const float* logits = session.feed({{1, 1, 1, 1, 1, 1}, {7}});
    CHECK_EQ(peak(logits, 0), (6 + 6 + 5) % 16);
    CHECK_EQ(peak(logits, 1), (7 + 1 + 5) % 16);
    for (int i = 1; i < 5; ++i) logits = session.feed({{2}, {3}});
    CHECK_EQ(peak(logits, 0), (14 + 10 + 5) % 16);
    CHECK_EQ(peak(logits, 1), (19 + 5 + 5) % 16);
    session.reset(3);
    session.feed({{1}, {2}, {3}});
    session.reset(2);
  }
}

TEST(device_hears_tensorrt_from_any_thread) {
  const Bundle bundle = make_bundle({{"a.engine", "garbage"}});
  fake::state().threads_that_log = 4;
  std::size_t warnings = 0, others = 0;
  TensorRtOptions options;
  options.warn = [&](const std::string& text) { ++(text == "TensorRT: a warning" ? warnings : others); };
  const BuildError error = THROWN(BuildError, backend_of(bundle, options));
  CHECK_EQ(error.found, "magic tag does not match");
  CHECK_EQ(warnings, 4000u);
  CHECK_EQ(others, 4002u);  // the errors, the last one, and that no card has run it
}

TEST(device_names_what_an_engine_cannot_run_here_for) {
  using Fault = nvinfer1::EngineInvalidityDiagnostics;
  const std::pair<Fault, const char*> kReasons[] = {
      {Fault::kOLD_CUDA_DRIVER, "a driver that is too old"},
      {Fault::kOLD_CUDA_RUNTIME, "a CUDA runtime that is too old"},
      {Fault::kVERSION_MISMATCH, "another TensorRT-RTX than the one that built it"},
      {Fault::kUNSUPPORTED_CC, "a card whose class it was not built for"},
      {Fault::kINSUFFICIENT_GPU_MEMORY, "too little GPU memory"},
      {Fault::kCUDA_ERROR, "an error of CUDA"},
      {Fault{}, "a refusal without a reason"}};
  const Bundle bundle = make_bundle();
  for (const auto& [fault, found] : kReasons) {
    fake::state() = {};
    fake::state().validity = 2;
    fake::state().faults = static_cast<std::uint64_t>(fault);
    CHECK_EQ(THROWN(UnavailableError, backend_of(bundle)).found, found);
    CHECK_EQ(fake::state().plugin, "");  // nothing was loaded
  }
  fake::state().faults = static_cast<std::uint64_t>(Fault::kMALFORMED_ENGINE);
  CHECK_EQ(THROWN(BuildError, backend_of(bundle)).found, "something else");
  fake::state() = {};
  fake::state().driver = 12080;
  const UnavailableError old = THROWN(UnavailableError, backend_of(bundle));
  CHECK_EQ(old.expected + "|" + old.found, "a driver that runs CUDA 13|one for CUDA 12.8");
}

TEST(device_refuses_tensors_that_are_not_the_cards) {
  const Bundle bundle = make_bundle();
  const auto refused = [&] {
    const BuildError error = THROWN(BuildError, backend_of(bundle));
    fake::state() = {};
    return error.subject + "|" + error.found;
  };
  fake::state().on_host = "length";
  CHECK_EQ(refused(), "a.engine: length|one of main memory");
  fake::state().shapes_of = "position";
  CHECK_EQ(refused(), "a.engine: position|one of which TensorRT takes shapes");
  fake::state().aliases["conv_state_out.0"] = "conv_state.0";
  CHECK_EQ(refused(), "a.engine: conv_state_out.0|that of conv_state.0");
  fake::state().aliases.erase("ssm_state_out.0");
  std::string heard;
  TensorRtOptions options;
  options.warn = [&](const std::string& text) { heard += text + "\n"; };
  backend_of(bundle, options);
  CHECK(heard.find("TensorRT does not say that ssm_state_out.0 works in place") != std::string::npos);
  CHECK_EQ(fake::state().live_allocations, 0);
}

TEST(device_refuses_logits_that_are_not_the_manifests) {
  const Bundle bundle = make_bundle();
  const auto refused = [&](std::vector<std::int64_t> shape, nvinfer1::DataType type) {
    fake::state() = {};
    fake::state().logits = std::move(shape);
    fake::state().logits_type = static_cast<int>(type);
    const std::string text = THROWN(BuildError, backend_of(bundle)).what();
    CHECK_EQ(fake::state().live_allocations, 0);
    return text;
  };
  using nvinfer1::DataType;
  const auto told = [](const std::string& found) {
    return "a.engine: logits: expected float32 [B, 16] as in manifest.json, found " + found +
           ". Export the bundle again.";
  };
  CHECK_EQ(refused({-1, 17}, DataType::kFLOAT), told("[-1, 17]"));
  CHECK_EQ(refused({-1, -1, 16}, DataType::kFLOAT), told("[-1, -1, 16]"));
  CHECK_EQ(refused({-1, -1}, DataType::kFLOAT), told("[-1, -1]"));
  CHECK_EQ(refused({}, DataType::kFLOAT), told("[]"));
  CHECK_EQ(refused({-1, 16}, DataType::kINT64), told("another type"));
}

TEST(device_refuses_an_engine_without_an_output_of_the_manifest_and_does_not_ask_tensorrt_about_it) {
  const Bundle bundle = make_bundle();
  for (const auto& [name, shape] :
       std::map<std::string, std::string>{{"logits", "[B, 16]"}, {"conv_state_out.0", "[B, 1, 1]"}}) {
    fake::state() = {};
    fake::state().missing = name;
    CHECK_EQ(THROWN(BuildError, backend_of(bundle)).what(),
             "a.engine: " + name + ": expected float32 " + shape +
                 " as in manifest.json, found none of that name. Export the bundle again.");
    CHECK_EQ(fake::state().live_allocations, 0);
  }
}

TEST(device_refuses_weights_that_the_engine_would_take_for_others) {
  const std::string whole = R"("parent_shape": [2, 2], "shape": [2, 2], "runs": [[[0, 2]], [[0, 2]]])";
  using nvinfer1::DataType;
  const Bundle bundle = make_bundle();
  const auto open = [&](DataType wanted, const std::string& stored, const std::string& shape) {
    fake::state() = {};
    fake::state().weight_type = static_cast<int>(wanted);
    std::ofstream(bundle.path() / "weights.json", std::ios::binary)
        << R"({"schema": "elastic-weights/2", "inputs": {"w": {"file": "parent.bin", "offset": 0, "dtype": ")"
        << stored << "\", " << shape << "}}}";
    backend_of(bundle);
  };
  const std::tuple<DataType, const char*, std::string> kOthers[] = {
      {DataType::kFLOAT, "fp32", R"("parent_shape": [3, 3], "shape": [1, 2], "runs": [[[0, 1]], [[0, 2]]])"},
      {DataType::kFLOAT, "fp32", R"("parent_shape": [4], "shape": [4], "runs": [[[0, 4]]])"},
      {DataType::kFLOAT, "bf16", whole},
      {DataType::kBF16, "fp16", whole},  // of the same bytes, which mean other numbers
      {DataType::kHALF, "bf16", whole},
      {DataType::kFP8, "int8", whole}};
  for (const auto& [wanted, stored, shape] : kOthers) {
    const InputError error = THROWN(InputError, open(wanted, stored, shape));
    CHECK_EQ(
        std::string(error.what()),
        "weight w: expected the shape and dtype that a.engine has, found others in weights.json. Export the "
        "bundle again.");
    CHECK_EQ(fake::state().live_allocations, 0);
  }
  open(DataType::kFLOAT, "fp32", whole);
  open(DataType::kBF16, "bf16", whole);
  open(DataType::kHALF, "fp16", whole);
  open(DataType::kINT8, "int8", whole);
}

TEST(device_refuses_a_weight_that_the_engine_does_not_have_before_any_is_read) {
  const Bundle bundle = make_bundle();
  const std::string body = R"({"file": "parent.bin", "offset": 0, "dtype": "fp32", "parent_shape": [3, 3],
      "shape": [2, 2], "runs": [[[0, 2]], [[0, 2]]]})";
  std::ofstream(bundle.path() / "weights.json", std::ios::binary)
      << R"({"inputs": {"w": )" << body << R"(, "more": )" << body << "}}";
  std::size_t bytes = 0;
  TensorRtOptions options;
  options.on_bytes = [&](std::size_t count) { bytes += count; };
  const InputError error = THROWN(InputError, backend_of(bundle, options));
  CHECK_EQ(std::string(error.what()),
           "weight more: expected an input of a.engine, found none of that name. Export the bundle again.");
  CHECK_EQ(bytes, std::size_t{0});
  CHECK_EQ(fake::state().live_allocations, 0);
}

TEST(device_warns_and_can_be_ended_while_it_loads) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  std::string heard;
  options.warn = [&](const std::string& text) {
    if (text.find("kernels") == std::string::npos) heard += text;
  };
  std::size_t bytes = 0;
  options.on_bytes = [&](std::size_t count) { bytes += count; };
  backend_of(bundle, options);
  CHECK_EQ(heard,
           "a.engine was built, and its manifest names no card that has run it: `elastic-run BUNDLE --verify "
           "--require-engine` tries it on this one, and leaves the manifest as it is");
  CHECK_EQ(bytes, 20u);  // two rows of three floats, without the last
  options.on_bytes = [](std::size_t) { throw std::string("enough"); };
  CHECK_EQ(THROWN(std::string, backend_of(bundle, options)), "enough");
  CHECK_EQ(fake::state().live_allocations, 0);
}

TEST(device_refuses_before_it_allocates) {
  const Bundle bundle = make_bundle();
  const auto refused = [&](TensorRtOptions options = {}) {
    const std::string text = THROWN(Error, backend_of(bundle, options)).what();
    CHECK_EQ(fake::state().live_allocations, 0);
    fake::state() = {};
    return text;
  };
  fake::state().version[1] = 8;
  CHECK_EQ(refused(),
           "a.engine: expected tensorrt-rtx 1.7.1, found tensorrt-rtx 1.8.1. Install that version, or "
           "export "
           "the bundle for this one.");
  fake::state().has_device = false;
  CHECK_EQ(refused(),
           "a.engine: expected a card 0 of CUDA, found CUDA error 100. Look at the driver and "
           "CUDA_VISIBLE_DEVICES, or run the budget on the CPU.");
  fake::state().minor = 1;
  CHECK_EQ(refused(),
           "a.engine: expected a card of compute capability 8.9, 12.0, found Fake RTX with 12.1. "
           "Export the bundle for it with another --target.");
  fake::state().free_bytes = 644245094;
  CHECK_EQ(
      refused(),
      "budget 'b' on Fake RTX: expected 0.6 GiB of free memory (weights 0.00 + states 0.00 + caches 0.00 at "
      "20 "
      "tokens x 1 + scratch 0.00 (estimated) + reserve 0.6 = 0.6 GiB), found 0.6 GiB of 1.6. Close what uses "
      "the card, or take a smaller budget or an engine of a smaller context.");
  TensorRtOptions options;
  options.max_batch = 4;
  CHECK_EQ(refused(options), "batch: expected 1 to 3, found 4.");
  options.max_batch = 1;
  fake::state().refuses_plugins = true;
  CHECK_EQ(refused(),
           (bundle.path() / "libelastic_plugins.so").generic_string() +
               ": expected a plugin library that can be loaded, found no reason given. Build plugins/ again "
               "with the SDK of the TensorRT that is installed.");
}

TEST(device_warns_from_one_thread_at_a_time) {
  const Bundle bundle = make_bundle();
  fake::state().logs_on = true;
  std::atomic<int> inside{0};
  std::size_t of_threads = 0, own = 0, met = 0;
  TensorRtOptions options;
  options.warn = [&](const std::string& text) {
    met += ++inside > 1;
    const bool from_thread = text == "TensorRT: a warning of a thread";
    ++(from_thread ? of_threads : own);
    if (!from_thread) std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the other thread goes on
    --inside;
  };
  backend_of(bundle, options);
  CHECK_EQ(own, 2u);  // that no card has run it, that kernels are compiled
  CHECK_EQ(met, 0u);
}

TEST(device_what_was_looked_through_is_what_tensorrt_reads) {
  const Bundle bundle = make_bundle();
  fake::state().when_judged = [&] {
    std::ofstream(bundle.path() / "a.engine", std::ios::binary) << "another engine";
  };
  backend_of(bundle);
  CHECK_EQ(fake::state().judged, "engine");
}

TEST(device_refuses_wrong_plugins_and_engines) {
  const Bundle other = make_bundle({{}}, library_bytes("rtx-1.6"));
  const UnavailableError error = THROWN(UnavailableError, backend_of(other));
  CHECK_EQ(error.expected + "|" + error.found, "libraries for rtx-1.7|those for rtx-1.6");
  CHECK_EQ(error.exit_code(), 1);
  const Bundle broken = make_bundle({{"a.engine", "garbage"}});
  CHECK_EQ(std::string(THROWN(BuildError, backend_of(broken)).what()),
           "a.engine: expected an engine that can be read, found magic tag does not match. Export the bundle "
           "again "
           "with the TensorRT that is installed.");
  CHECK_EQ(fake::state().live_allocations, 0);
}

TEST(device_refuses_an_engine_that_changed_since) {
  const Bundle bundle = make_bundle();
  std::ofstream(bundle.path() / "a.engine", std::ios::binary) << "Engine";
  const DamageError error = THROWN(DamageError, backend_of(bundle));
  CHECK_EQ(fs::path(error.subject).filename().string(), "a.engine");
  CHECK_EQ(error.todo, "copy the bundle again, or export it again");
  CHECK_EQ(fake::state().live_allocations, 0);
}
