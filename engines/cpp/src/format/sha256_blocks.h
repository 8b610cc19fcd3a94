// The compression function of SHA-256 over whole blocks. Private to the library.
#pragma once

#include <cstddef>
#include <cstdint>

namespace elastic {

/// Fold `count` blocks of 64 bytes into `state` (8 words).
void sha256_blocks(std::uint32_t* state, const unsigned char* data, std::size_t count);

/// The same in plain C++, whatever the processor can do: the reference of the test.
void sha256_blocks_portable(std::uint32_t* state, const unsigned char* data, std::size_t count);

}  // namespace elastic
