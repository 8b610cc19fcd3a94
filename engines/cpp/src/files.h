// Small helpers about files and paths. Private to the library.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>

namespace elastic {

/// A path as errors show it: UTF-8, `/` between the parts on every system.
std::string path_text(const std::filesystem::path& path);

/// The path that UTF-8 text names.
std::filesystem::path path_of(const std::string& text);

/// What a person can do where the system refuses to read a file with that errno: elastic_runtime/errors.py
/// says the same, and more of writing. Empty where it is not known.
std::string advice_on(int error);

/// Up to `limit` + 1 bytes of a file, so that a longer one is noticed. Throws InputError that expected
/// `expected`.
std::string read_bytes(const std::filesystem::path& path, std::size_t limit, const std::string& expected);

/// Write a file so that it is there whole or not at all: beside it first, then exchanged. Returns whether it
/// was written; what lay there before is untouched if not. Throws nothing but for lack of memory.
bool replace_file(const std::filesystem::path& path, const void* data, std::size_t size);

/// a * b and a + b of counts >= 0; what exceeds 64 bits becomes the largest count, which no file or card
/// reaches.
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t times(std::int64_t a, std::int64_t b) {
  return b != 0 && a > kMost / b ? kMost : a * b;
}
constexpr std::int64_t plus(std::int64_t a, std::int64_t b) { return a > kMost - b ? kMost : a + b; }

}  // namespace elastic
