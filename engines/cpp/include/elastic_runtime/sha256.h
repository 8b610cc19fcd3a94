// SHA-256 (FIPS 180-4), with the x86 SHA instructions where the processor has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace elastic {

/// A digest in the making.
class Sha256 {
 public:
  void update(const void* data, std::size_t size);

  /// The digest, 64 lower-case hex digits; the object is spent.
  std::string hex();

 private:
  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> block_{};
  std::size_t filled_ = 0;
  std::uint64_t bytes_ = 0;
};

std::string sha256(std::string_view data);

/// (size in bytes, digest) of a file, read once in large pieces; `on_bytes` hears of every piece.
struct FileDigest {
  std::uint64_t size;
  std::string sha256;
};
FileDigest file_digest(const std::filesystem::path& path,
                       const std::function<void(std::size_t)>& on_bytes = {});

/// Whether `text` has the form of a sha256: 64 lower-case hex digits.
bool is_digest(std::string_view text);

}  // namespace elastic
