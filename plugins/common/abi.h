// Versions and flags of the library, legible in the file itself: a consumer refuses a wrong library before
// loading it.
#pragma once

#include "elastic_plugins.h"

namespace elastic {
// What precedes the JSON in the file; the text ends with a zero byte.
constexpr char kAbiMarker[] = "elastic-plugins-abi/1 ";
}  // namespace elastic
