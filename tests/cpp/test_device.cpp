// The TensorRT backend's own logic, against stand-ins for the SDKs: no GPU, no SDK.
#include <NvInferRuntime.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tensorrt/call_size.h"
#include "check.h"
#include "elastic_runtime/bundle.h"
#include "elastic_runtime/plugin_library.h"
#include "elastic_runtime/sha256.h"
#include "elastic_runtime/tensorrt_backend.h"
#include "fake_sdk.h"
#include "driver/staging.h"

#ifndef _WIN32
#include <sys/resource.h>
#endif

using namespace elastic;
using namespace elastic_test;
namespace fs = std::filesystem;
using Rows = std::vector<std::vector<std::int64_t>>;

namespace {

const char kManifest[] =
    R"({"schema": "elastic-bundle/1", "seal": "0000000000000000000000000000000000000000000000000000000000000000",
"producer": "test", "demo": false, "checkpoint": {"name": "p", "fingerprint": "f"}, "precision": "fp32", "weight_mode": "shared",
"logits": "last", "options": {}, "versions": {}, "rules": [], "budgets": [{"name": "b", "parameters": 4, "pattern": "M*", "layers": 2,
"kept_layers": [0, 1], "widths": {"vocab_size": 16, "hidden_size": 2, "ffn_sizes": [], "mamba_heads": [1], "mamba_head_dim": 1,
"ssm_groups": 1, "ssm_state": 1, "conv_kernel": 2, "attention_heads": 1, "kv_heads": 1, "attention_head_dim": 1}, "scalar_widths": true,
"weight_bytes": 16, "state_bytes": 8, "kv_bytes_per_token": 4, "states": [], "model": "model.onnx", "weights": "weights.json",
"golden": null, "report": null, "engines": [{"target": "rtx", "compute_capabilities": ["8.9", "12.0"], "file": "a.engine",
"flavour": "tensorrt-rtx", "version": "1.7.1.116", "ops": "plugin", "plugin": {"library": "libelastic_plugins.so",
"abi": "tensorrt-rtx-1.7"}, "max_context": 20, "max_tokens": 4, "max_batch": 3, "inputs": [{"name": "conv_state.0", "dtype": "float32",
"shape": ["B", 1, 1]}, {"name": "ssm_state.0", "dtype": "float32", "shape": ["B", 1, 1, 1]}, {"name": "key_cache.0", "dtype": "float32",
"shape": ["B", 1, "S", 1]}], "outputs": [{"name": "logits", "dtype": "float32", "shape": ["B", 16], "input": null, "alias": null},
{"name": "conv_state_out.0", "dtype": "float32", "shape": ["B", 1, 1], "input": "conv_state.0", "alias": "must_not"},
{"name": "ssm_state_out.0", "dtype": "float32", "shape": ["B", 1, 1, 1], "input": "ssm_state.0", "alias": "must"},
{"name": "key_cache_out.0", "dtype": "float32", "shape": ["B", 1, "S", 1], "input": "key_cache.0", "alias": "must"}], "activation": 512,
"activation_measured": false, "status": {"state": "built", "card": null, "date": null}, "fits": {"context": 20, "batch": 1,
"weights": 16, "states": 8, "caches": 80, "activation": 512, "activation_measured": false, "reserve": 1, "total": 617, "usable": null,
"enough": null}}]}], "files": [)";

void put(const fs::path& folder, const std::string& name, const std::string& data, std::string& files) {
  std::ofstream(folder / name, std::ios::binary) << data;
  files += (files.empty() ? "" : ", ") + ("{\"path\": \"" + name) +
           "\", \"size\": " + std::to_string(data.size()) + ", \"sha256\": \"" + sha256(data) + "\"}";
}

/// A bundle of the fake engine; its weight is a corner of a parent of 3 x 3, so that it needs a strided copy:
/// w[1][1] = 5.
Bundle make_bundle(const std::string& engine = "engine", const std::string& abi = "rtx-1.7") {
  fake::state() = {};
  const fs::path folder = scratch("device");
  const float parent[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::string files;
  put(folder, "a.engine", engine, files);
  put(folder, "model.onnx", "", files);
  put(folder, "parent.bin", std::string(reinterpret_cast<const char*>(parent), sizeof parent), files);
  put(folder, "weights.json",
      R"({"inputs": {"w": {"file": "parent.bin", "offset": 0, "dtype": "fp32", "parent_shape": [3, 3],
      "shape": [2, 2], "runs": [[[0, 2]], [[0, 2]]]}}})",
      files);
  std::ofstream(folder / "libelastic_plugins.so", std::ios::binary)
      << "\x7f"
      << "ELF elastic-plugins-abi/1 {\"tensorrt\": \"" << abi << "\"}" << '\0' << "more";
  std::ofstream(folder / "manifest.json", std::ios::binary)
      << reseal(std::string(kManifest) + files + "], \"external_weights\": []}");
  return Bundle::open(folder);
}

std::unique_ptr<Backend> backend_of(const Bundle& bundle, TensorRtOptions options = {}) {
  const BudgetEntry& budget = bundle.budget("b");
  if (!options.plugins) options.plugins = bundle.path();
  return make_tensorrt_backend(bundle, budget, budget.engines[0], options);
}

std::int64_t peak(const float* logits, std::int64_t row = 0) {
  for (std::int64_t id = 0; id < fake::kVocab; ++id) {
    if (logits[row * fake::kVocab + id] > 0) return id;
  }
  return -1;
}

/// Feeds a prompt and ten tokens; every answer must be (sum + count + 5) % 16.
void drive(Session& session) {
  std::int64_t sum = 1 + 2 + 3 + 4 + 5, count = 5;
  const float* logits = session.feed({{1, 2, 3, 4, 5}});
  for (int i = 0; i < 10; ++i) {
    CHECK_EQ(peak(logits), (sum + count + 5) % fake::kVocab);
    sum += i, ++count;
    logits = session.feed({{i}});
  }
}

}  // namespace

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

TEST(device_weights_pass_through_two_buffers_in_turn) {
  fake::state() = {};
  const cuda::Stream stream = cuda::make_stream();
  std::vector<std::byte> file(300);
  for (std::size_t i = 0; i < file.size(); ++i) file[i] = static_cast<std::byte>(i * 7);
  const std::vector<Block> blocks = {{0, 0, 100, 1, 100, 100},     // one piece, longer than a buffer
                                     {100, 100, 5, 10, 20, 5},     // rows that become one piece
                                     {103, 150, 4, 9, 20, 6}};     // rows apart on both sides
  std::vector<std::byte> wanted(204, std::byte{0xEE});
  copy_blocks(file.data(), wanted.data(), blocks);
  const cuda::Device memory = cuda::allocate(wanted.size(), "a test");
  std::vector<std::uint64_t> touched;
  const auto note = [&](std::uint64_t, std::uint64_t size) { touched.push_back(size); };
  {
    cuda::Staging staging(stream.get(), 48);
    staging.copy(file.data(), memory.get(), blocks, note, [](std::uint64_t, std::uint64_t) {});
    CHECK(cudaStreamSynchronize(stream.get()) == cudaSuccess);
    CHECK_EQ(fake::state().pinned.size(), 2u);
  }
  CHECK(std::memcmp(memory.get(), wanted.data(), wanted.size()) == 0);
  CHECK(touched.size() > 8);
  for (const std::uint64_t size : touched) CHECK(size <= 48);
  CHECK_EQ(fake::state().pinned.size(), 0u);
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

TEST(device_runtime_cache_is_kept) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.runtime_cache = fs::path(scratch("cache")) / "kernels";
  for (const char* wanted : {"", "+", "++"}) {
    fake::state().cache_read = "";
    backend_of(bundle, options);
    CHECK_EQ(fake::state().cache_read, wanted);
  }
}

#ifndef _WIN32
TEST(device_a_full_disk_leaves_the_old_runtime_cache) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.runtime_cache = fs::path(scratch("full")) / "kernels";
  std::ofstream(*options.runtime_cache) << "+++";
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  {
    const auto backend = backend_of(bundle, options);  // will want to write four
    const rlimit none{2, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &none);
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::string kept;
  std::ifstream(*options.runtime_cache) >> kept;
  CHECK_EQ(kept, "+++");
  CHECK_EQ(
      std::distance(fs::directory_iterator(options.runtime_cache->parent_path()), fs::directory_iterator()),
      1);
}
#endif

TEST(device_an_empty_runtime_cache_is_none) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.runtime_cache = fs::path(scratch("empty")) / "kernels";
  std::ofstream(*options.runtime_cache) << "";
  fake::state().cache_read = "";
  backend_of(bundle, options);
  CHECK_EQ(fake::state().cache_read, "");
  CHECK_EQ(fs::file_size(*options.runtime_cache), 1u);  // and made anew
}

TEST(device_plugins_come_from_the_named_folder_alone) {
  const Bundle bundle = make_bundle();  // which a library lies in, as in any folder that a stranger packs
  const EngineEntry& engine = bundle.budget("b").engines[0];
  CHECK_EQ(*plugin_source(engine, bundle.path(), false).library, bundle.path() / "libelastic_plugins.so");
  for (const bool trusted : {false, true}) {
    const UnavailableError error = THROWN(UnavailableError, plugin_source(engine, std::nullopt, trusted));
    CHECK_EQ(error.expected + "|" + error.found, "a folder of plugin libraries|none named");
  }
  CHECK_EQ(THROWN(UnavailableError, plugin_source(engine, scratch("nowhere"), true)).found, "no such file");
}

TEST(device_a_native_engine_takes_the_place_of_one_without_its_library) {
  const Bundle bundle = make_bundle();
  std::vector<BudgetEntry> budgets = bundle.manifest().budgets;
  EngineEntry native = budgets[0].engines[0];
  native.ops = "native";
  native.plugin.reset();
  native.file = "b/native.engine";
  budgets[0].engines = {native, budgets[0].engines[0]};
  const Request request{64 * kGib, 1, 1, {}};
  std::vector<std::string> said;
  const auto left = [&](std::vector<BudgetEntry> whole, const std::optional<fs::path>& folder) {
    leave_out_without_plugins(whole, request, folder, false, [&](const std::string& text) { said.push_back(text); });
    return choose(whole, request).chosen()->engine->file;
  };
  CHECK_EQ(left(budgets, bundle.path()), bundle.budget("b").engines[0].file);
  CHECK(said.empty());
  CHECK_EQ(left(budgets, std::nullopt), "b/native.engine");
  CHECK_EQ(said.size(), 1u);
  CHECK_EQ(said[0].rfind("warning: b/native.engine in place of " + bundle.budget("b").engines[0].file + ": ", 0), 0u);
  CHECK_EQ(THROWN(UnavailableError, left(bundle.manifest().budgets, std::nullopt)).found, "none named");
}

TEST(device_library_inside_an_engine_runs_where_it_is_known_or_vouched_for) {
  const std::string header = std::string(
                                 "\x7f"
                                 "ELF\x02\x01\x01",
                                 7) +
                             std::string(9, '\0') + std::string("\x03\0\x3e\0\x01\0\0\0", 8);
  const std::string library = header + "one", other = header + "two";
  const auto carrying = [&](const std::string& inside) {
    const Bundle bundle = make_bundle("vtrt" + inside);
    EngineEntry engine = bundle.budget("b").engines[0];
    engine.plugin->carried =
        CarriedLibrary{"a.so", static_cast<std::int64_t>(library.size()), sha256(library), "rtx-1.7", {}};
    return std::pair(bundle, engine);
  };
  const auto [bundle, engine] = carrying(library);
  check_code(bundle, engine);
  CHECK(plugin_source(engine, std::nullopt, true).carried);
  const UnavailableError unknown = THROWN(UnavailableError, plugin_source(engine, bundle.path(), false));
  CHECK_EQ(unknown.expected, "a plugin library in it that is known here");
  std::ofstream(bundle.path() / "known.so", std::ios::binary) << library;
  CHECK(plugin_source(engine, bundle.path(), false).carried);
  for (const std::string& inside : {other, library + other, std::string()}) {
    const auto [swapped, entry] = carrying(inside);
    CHECK_EQ(THROWN(DamageError, check_code(swapped, entry)).todo,
             "do not run it: get the bundle from where it was made");
  }
  EngineEntry native = engine;
  native.plugin.reset();
  CHECK_EQ(THROWN(DamageError, check_code(carrying(library).first, native)).found, "other code at byte 4");
}

TEST(device_kernels_are_shared_by_the_contexts_of_a_run) {
  const Bundle bundle = make_bundle();
  std::vector<std::string> heard;
  TensorRtOptions options;
  options.warn = [&](const std::string& text) { heard.push_back(text); };
  const std::string compiling = "compiling the kernels of a.engine for this card, once: up to half a minute";
  backend_of(bundle, options);  // no file is named: the cache is there all the same
  CHECK_EQ(std::count(heard.begin(), heard.end(), compiling), 1);
  options.runtime_cache = fs::path(scratch("announced")) / "kernels";
  backend_of(bundle, options);
  CHECK_EQ(std::count(heard.begin(), heard.end(), compiling), 2);
  backend_of(bundle, options);
  CHECK_EQ(std::count(heard.begin(), heard.end(), compiling), 2);
}

#ifndef _WIN32
TEST(device_kernels_are_kept_where_python_keeps_them) {
  const Bundle bundle = make_bundle();
  const EngineEntry& engine = bundle.budget("b").engines[0];
  const auto place = [&] { return default_runtime_cache(bundle, engine, "Fake RTX 5080 (16 GB)").generic_string(); };
  const std::string name = sha256("engine").substr(0, 16) + "-Fake-RTX-5080-16-GB-.cache";
  for (const char* variable : {"ELASTIC_CACHE", "XDG_CACHE_HOME"}) unsetenv(variable);
  setenv("HOME", "/home/x", 1);
  CHECK_EQ(place(), "/home/x/.cache/elastic-runtime/kernels/" + name);
  setenv("XDG_CACHE_HOME", "/caches", 1);
  CHECK_EQ(place(), "/caches/elastic-runtime/kernels/" + name);
  setenv("ELASTIC_CACHE", "/ours", 1);
  CHECK_EQ(place(), "/ours/kernels/" + name);
  EngineEntry unlisted = engine;
  unlisted.file = "other.engine";
  CHECK_EQ(fs::path(default_runtime_cache(bundle, unlisted, "x")).filename().string(), "unlisted-x.cache");
}
#endif

TEST(device_hears_tensorrt_from_any_thread) {
  const Bundle bundle = make_bundle("garbage");
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
  CHECK_EQ(refused(), "engine a.engine: length|one of main memory");
  fake::state().shapes_of = "position";
  CHECK_EQ(refused(), "engine a.engine: position|one of which TensorRT takes shapes");
  fake::state().aliases["conv_state_out.0"] = "conv_state.0";
  CHECK_EQ(refused(), "engine a.engine: conv_state_out.0|that of conv_state.0");
  fake::state().aliases.erase("ssm_state_out.0");
  std::string heard;
  TensorRtOptions options;
  options.warn = [&](const std::string& text) { heard += text + "\n"; };
  backend_of(bundle, options);
  CHECK(heard.find("TensorRT does not say that ssm_state_out.0 works in place") != std::string::npos);
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
           "engine a.engine: expected tensorrt-rtx 1.7.1, found tensorrt-rtx 1.8.1. Install that version, or "
           "export "
           "the bundle for this one.");
  fake::state().has_device = false;
  CHECK_EQ(refused(),
           "engine a.engine: expected an NVIDIA GPU with a driver, found none. Run the budget on the CPU.");
  fake::state().minor = 1;
  CHECK_EQ(refused(),
           "engine a.engine: expected a GPU of compute capability 8.9 or 12.0, found Fake RTX of 12.1. "
           "Export the bundle "
           "for this card.");
  fake::state().free_bytes = 644245094;
  CHECK_EQ(refused(),
           "engine a.engine: expected 0.6 GiB of free GPU memory, found 0.6 GiB. Take a smaller budget or "
           "context.");
  TensorRtOptions options;
  options.max_batch = 4;
  CHECK_EQ(refused(options), "batch: expected 1 to 3, found 4.");
  options.max_batch = 1;
  options.plugins = scratch("no_plugins");
  CHECK_EQ(refused(options),
           "libelastic_plugins.so: expected the library in " + fs::path(*options.plugins).generic_string() +
               ", found no such file. Install elastic-plugins, or build plugins/ with CMake, and name its "
               "folder with --plugins.");
}

TEST(device_refuses_wrong_plugins_and_engines) {
  const Bundle other = make_bundle("engine", "rtx-1.6");
  const UnavailableError error = THROWN(UnavailableError, backend_of(other));
  CHECK_EQ(error.expected + "|" + error.found, "a library for tensorrt-rtx-1.7|one for rtx-1.6");
  CHECK_EQ(error.exit_code(), 1);
  const Bundle broken = make_bundle("garbage");
  CHECK_EQ(std::string(THROWN(BuildError, backend_of(broken)).what()),
           "engine a.engine: expected an engine that can be read, found magic tag does not match.");
  CHECK_EQ(fake::state().live_allocations, 0);
}
