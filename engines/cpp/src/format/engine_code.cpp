#include "format/engine_code.h"

#include "elastic_runtime/sha256.h"

namespace elastic {
namespace {

constexpr std::string_view kMagic(
    "\x7f"
    "ELF",
    4);
constexpr std::size_t kHeader = 24;  // up to the end of e_version
constexpr unsigned kCudaMachine = 190;

unsigned byte_at(std::string_view data, std::size_t place) { return static_cast<unsigned char>(data[place]); }

// Whether a loader could take what begins there. Kernels are ELF files too, of a machine that no host is.
bool is_image(std::string_view data, std::size_t offset) {
  if (data.size() - offset < kHeader) return false;
  const unsigned kind = byte_at(data, offset + 4), order = byte_at(data, offset + 5),
                 version = byte_at(data, offset + 6);
  const unsigned machine = byte_at(data, offset + 18) | byte_at(data, offset + 19) << 8;
  const bool little = order == 1;
  return (kind == 1 || kind == 2) && (little || order == 2) && version == 1 &&
         !(little && machine == kCudaMachine);
}

}  // namespace

HostCode host_code(std::string_view data, std::uint64_t size, const std::string& digest) {
  HostCode found;
  std::size_t end = 0;
  for (std::size_t at = data.find(kMagic); at != std::string_view::npos; at = data.find(kMagic, at + 1)) {
    if (at < end || !is_image(data, at)) continue;
    const bool fits = size > 0 && size <= data.size() - at;
    if (fits && sha256(data.substr(at, static_cast<std::size_t>(size))) == digest) {
      ++found.known;
      end = at + static_cast<std::size_t>(size);
    } else {
      found.unknown.push_back(at);
    }
  }
  return found;
}

}  // namespace elastic
