// Bundles of the stand-in's engine (fake_sdk/fake_engine.cpp), and its sessions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "elastic_runtime/bundle.h"
#include "elastic_runtime/session.h"
#include "elastic_runtime/tensorrt_backend.h"

namespace elastic_test {

/// An engine of the bundle: its file, its bytes and the JSON of its `plugin`, null for a native one.
struct EngineFile {
  std::string file = "a.engine", bytes = "engine";
  std::string plugin = R"({"library": "libelastic_plugins.so", "abi": "tensorrt-rtx-1.7"})";
};

/// A library of plugins as a loader would see it, with what it says of itself.
std::string library_bytes(const std::string& abi = "rtx-1.7", const std::string& architectures = "120-real");

/// A bundle of the fake engine; its weight is a corner of a parent of 3 x 3, so that it needs a strided copy:
/// w[1][1] = 5. A plugin library lies in it, as in any folder that a stranger packs. The stand-ins begin
/// anew.
elastic::Bundle make_bundle(const std::vector<EngineFile>& engines = {{}},
                            const std::string& library = library_bytes());

/// Its first engine, with the plugins that lie in the bundle unless others are named.
std::unique_ptr<elastic::Backend> backend_of(const elastic::Bundle& bundle,
                                             elastic::TensorRtOptions options = {});

/// The token of a row's logits that the fake engine says follows; -1: none.
std::int64_t peak(const float* logits, std::int64_t row = 0);

/// Feeds a prompt and ten tokens; every answer must be (sum + count + 5) % 16.
void drive(elastic::Session& session);

}  // namespace elastic_test
