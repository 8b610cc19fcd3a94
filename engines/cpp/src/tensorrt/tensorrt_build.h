// What depends on whether this library was built with TensorRT, beside the backend itself. Private to the
// library.
#pragma once

#include "elastic_runtime/device.h"
#include "elastic_runtime/plugin_library.h"
#include "elastic_runtime/tensorrt_backend.h"

namespace elastic {

/// Whether an engine could run on that card, were there memory, and where its plugins come from; its file is
/// not read. Throws UnavailableError: built without TensorRT, a card of another class, an engine of another
/// flavour or version, a driver that is too old, no plugin library that fits; as `plugin_source` about a
/// folder that was named.
PluginSource check_runs(const EngineEntry& engine, const Device& device, const TensorRtOptions& options);

}  // namespace elastic
