// Bundles of the stand-in's engine (fake_sdk/fake_engine.cpp).
#pragma once

#include <string>
#include <vector>

#include "elastic_runtime/bundle.h"

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

}  // namespace elastic_test
