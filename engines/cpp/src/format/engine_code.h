// Code for the host inside an engine file; the same rules as elastic_runtime/format/engine_code.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace elastic {

/// What host code a file holds: how often the one piece that is known, and the offsets of whatever else a
/// loader could take.
struct HostCode {
  std::size_t known = 0;
  std::vector<std::size_t> unknown;
};

/// `size` and `sha256` of the known piece; a size of 0 for none. What lies inside it belongs to it.
HostCode host_code(std::string_view data, std::uint64_t size, const std::string& sha256);

}  // namespace elastic
