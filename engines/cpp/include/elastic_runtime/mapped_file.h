// A file mapped read-only. Pages are fetched before they are copied and given back after.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

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

  /// Map `count` bytes from `offset` in one go rather than by a fault every few pages. Only about speed.
  void fetch(std::uint64_t offset, std::uint64_t count) const;

  /// Unmap these bytes again: they stay in the page cache, and reading them only faults. Only about memory.
  void release(std::uint64_t offset, std::uint64_t count) const;

 private:
  const std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
};

}  // namespace elastic
