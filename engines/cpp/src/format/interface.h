// What elastic_runtime/format/interface.py says of the interface of an engine. Private to the library.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "elastic_runtime/manifest.h"

namespace elastic {

/// `logits`: float32 [B, V] of the last real token, or [B, T, V].
OutputPort logits_port(std::int64_t vocab_size, bool every_token);

/// `[B, T, 131072]`, for people.
std::string shape_text(const std::vector<Dim>& shape);

}  // namespace elastic
