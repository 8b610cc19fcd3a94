// JSON to records. Private to the library.
#pragma once

#include <vector>

#include "elastic_runtime/manifest.h"
#include "format/records.h"

namespace elastic {

/// A manifest without its `schema` and `seal`. Throws InputError: wrong type, missing or unknown field.
Manifest decode_manifest(const Value& value, const Where& where);

/// An array of [start, count].
Runs decode_runs(const Value& value, const Where& where);

}  // namespace elastic
