#include "device_bundle.h"

#include <filesystem>
#include <fstream>

#include "check.h"
#include "elastic_runtime/sha256.h"
#include "fake_sdk.h"

namespace fs = std::filesystem;

using namespace elastic;

namespace elastic_test {
namespace {

const char kHead[] =
    R"({"schema": "elastic-bundle/1", "seal": "0000000000000000000000000000000000000000000000000000000000000000",
"producer": "test", "demo": false, "checkpoint": {"name": "p", "fingerprint": "f"}, "precision": "fp32", "weight_mode": "shared",
"logits": "last", "options": {}, "versions": {}, "rules": [], "budgets": [{"name": "b", "parameters": 4, "pattern": "M*", "layers": 2,
"kept_layers": [0, 1], "widths": {"vocab_size": 16, "hidden_size": 2, "ffn_sizes": [], "mamba_heads": [1], "mamba_head_dim": 1,
"ssm_groups": 1, "ssm_state": 1, "conv_kernel": 2, "attention_heads": 1, "kv_heads": 1, "attention_head_dim": 1}, "scalar_widths": true,
"weight_bytes": 16, "state_bytes": 8, "kv_bytes_per_token": 4, "states": [], "model": "model.onnx", "weights": "weights.json",
"golden": null, "report": null, "engines": [)";

const char kEngine[] =
    R"({"target": "rtx", "compute_capabilities": ["8.9", "12.0"], "file": "@FILE",
"flavour": "tensorrt-rtx", "version": "1.7.1.116", "ops": "@OPS", "plugin": @PLUGIN, "max_context": 20, "max_tokens": 4, "max_batch": 3, "inputs": [{"name": "conv_state.0", "dtype": "float32",
"shape": ["B", 1, 1]}, {"name": "ssm_state.0", "dtype": "float32", "shape": ["B", 1, 1, 1]}, {"name": "key_cache.0", "dtype": "float32",
"shape": ["B", 1, "S", 1]}], "outputs": [{"name": "logits", "dtype": "float32", "shape": ["B", 16], "input": null, "alias": null},
{"name": "conv_state_out.0", "dtype": "float32", "shape": ["B", 1, 1], "input": "conv_state.0", "alias": "must_not"},
{"name": "ssm_state_out.0", "dtype": "float32", "shape": ["B", 1, 1, 1], "input": "ssm_state.0", "alias": "must"},
{"name": "key_cache_out.0", "dtype": "float32", "shape": ["B", 1, "S", 1], "input": "key_cache.0", "alias": "must"}], "activation": 512,
"activation_measured": false, "status": {"state": "built", "card": null, "date": null}, "fits": {"context": 20, "batch": 1,
"weights": 16, "states": 8, "caches": 80, "activation": 512, "activation_measured": false, "reserve": 1, "total": 617, "usable": null,
"enough": null}})";

void put(const fs::path& folder, const std::string& name, const std::string& data, std::string& files) {
  fs::create_directories((folder / name).parent_path());
  std::ofstream(folder / name, std::ios::binary) << data;
  files += (files.empty() ? "" : ", ") + ("{\"path\": \"" + name) +
           "\", \"size\": " + std::to_string(data.size()) + ", \"sha256\": \"" + elastic::sha256(data) +
           "\"}";
}

std::string entry_of(const EngineFile& engine) {
  std::string entry = kEngine;
  const auto replace = [&](const std::string& from, const std::string& to) {
    entry.replace(entry.find(from), from.size(), to);
  };
  replace("@FILE", engine.file);
  replace("@OPS", engine.plugin == "null" ? "native" : "plugin");
  replace("@PLUGIN", engine.plugin);
  return entry;
}

}  // namespace

std::string library_bytes(const std::string& abi, const std::string& architectures) {
  const std::string header(
      "\x7f"
      "ELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0",
      24);
  return header + "elastic-plugins-abi/1 {\"library\": \"0.1.0\", \"tensorrt\": \"" + abi +
         "\", \"cuda\": \"13.0\", \"architectures\": \"" + architectures + "\"}" + std::string(1, '\0') +
         "more";
}

elastic::Bundle make_bundle(const std::vector<EngineFile>& engines, const std::string& library) {
  fake::state() = {};
  const fs::path folder = scratch("device");
  const float parent[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::string files, entries;
  for (const EngineFile& engine : engines) {
    put(folder, engine.file, engine.bytes, files);
    entries += (entries.empty() ? "" : ", ") + entry_of(engine);
  }
  put(folder, "model.onnx", "", files);
  put(folder, "parent.bin", std::string(reinterpret_cast<const char*>(parent), sizeof parent), files);
  put(folder, "weights.json",
      R"({"inputs": {"w": {"file": "parent.bin", "offset": 0, "dtype": "fp32", "parent_shape": [3, 3],
      "shape": [2, 2], "runs": [[[0, 2]], [[0, 2]]]}}})",
      files);
  std::ofstream(folder / "libelastic_plugins.so", std::ios::binary) << library;
  std::ofstream(folder / "manifest.json", std::ios::binary) << elastic::reseal(
      std::string(kHead) + entries + "]}], \"files\": [" + files + "], \"external_weights\": []}");
  return elastic::Bundle::open(folder);
}

std::unique_ptr<Backend> backend_of(const Bundle& bundle, TensorRtOptions options) {
  const BudgetEntry& budget = bundle.budget("b");
  if (!options.plugins) options.plugins = bundle.path();
  return make_tensorrt_backend(bundle, budget, budget.engines[0], options);
}

std::int64_t peak(const float* logits, std::int64_t row) {
  for (std::int64_t id = 0; id < fake::kVocab; ++id) {
    if (logits[row * fake::kVocab + id] > 0) return id;
  }
  return -1;
}

void drive(Session& session) {
  std::int64_t sum = 1 + 2 + 3 + 4 + 5, count = 5;
  const float* logits = session.feed({{1, 2, 3, 4, 5}});
  for (int i = 0; i < 10; ++i) {
    CHECK_EQ(peak(logits), (sum + count + 5) % fake::kVocab);
    sum += i, ++count;
    logits = session.feed({{i}});
  }
}

}  // namespace elastic_test
