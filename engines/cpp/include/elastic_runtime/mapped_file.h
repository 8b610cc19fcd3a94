// A file of tensors: mapped read-only for views of it, read for what is copied out of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace elastic {

/// Read-only view of a whole file; it lives as long as this object.
class MappedFile {
 public:
  /// Throws InputError when the file cannot be opened, is empty or cannot be mapped.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  std::uint64_t size() const { return size_; }

  /// Fill `into` with `count` bytes from `offset` on; several threads may at once. Throws InputError: the
  /// file has become shorter, or cannot be read.
  void read(std::uint64_t offset, std::byte* into, std::size_t count) const;

 private:
  /// Up to `count` bytes, 0 at the end of the file; what was found, and what to do, where it cannot be read.
  std::size_t read_some(std::uint64_t offset, std::byte* into, std::size_t count, std::string& found,
                        std::string& todo) const;

  std::filesystem::path path_;
  std::intptr_t file_ = -1;  ///< the system's handle
  const std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
};

}  // namespace elastic
