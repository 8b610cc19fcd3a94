#include "elastic_runtime/sha256.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "elastic_runtime/error.h"
#include "files.h"
#include "format/sha256_blocks.h"

namespace elastic {

void Sha256::update(const void* data, std::size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  bytes_ += size;
  if (filled_ > 0) {
    const std::size_t taken = std::min(size, block_.size() - filled_);
    std::memcpy(block_.data() + filled_, bytes, taken);
    filled_ += taken;
    bytes += taken;
    size -= taken;
    if (filled_ < block_.size()) return;
    sha256_blocks(state_.data(), block_.data(), 1);
    filled_ = 0;
  }
  sha256_blocks(state_.data(), bytes, size / 64);
  filled_ = size % 64;
  if (filled_ > 0) std::memcpy(block_.data(), bytes + (size - filled_), filled_);
}

std::string Sha256::hex() {
  const std::uint64_t bits = bytes_ * 8;
  const unsigned char one = 0x80, zero = 0;
  update(&one, 1);
  while (filled_ != 56) update(&zero, 1);
  unsigned char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(bits >> (56 - 8 * i));
  update(length, 8);
  std::string text;
  for (const std::uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[(word >> shift) & 15];
  }
  return text;
}

std::string sha256(std::string_view data) {
  Sha256 state;
  state.update(data.data(), data.size());
  return state.hex();
}

FileDigest file_digest(const std::filesystem::path& path, const std::function<void(std::size_t)>& on_bytes) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(path_text(path), "a readable file", errno ? std::strerror(errno) : "an error");
  std::vector<char> piece(std::size_t{4} << 20);
  Sha256 state;
  std::uint64_t size = 0;
  while (file.read(piece.data(), static_cast<std::streamsize>(piece.size())), file.gcount() > 0) {
    const auto count = static_cast<std::size_t>(file.gcount());
    state.update(piece.data(), count);
    size += count;
    if (on_bytes) on_bytes(count);
  }
  if (file.bad())
    throw InputError(path_text(path), "a readable file", errno ? std::strerror(errno) : "a read error");
  return {size, state.hex()};
}

bool is_digest(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace elastic
