#include <cstring>
#include <fstream>

#include "check.h"
#include "elastic_runtime/sampler.h"
#include "elastic_runtime/sha256.h"
#include "format/sha256_blocks.h"

using namespace elastic;
using namespace elastic_test;

TEST(sha256_published_vectors) {  // FIPS 180-4 examples
  CHECK_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK_EQ(sha256(std::string(1000000, 'a')),
           "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(sha256_pieces_make_the_whole) {
  const std::string data(1000, 'x');
  for (std::size_t cut : {0u, 1u, 55u, 56u, 63u, 64u, 65u, 119u, 128u, 999u}) {
    Sha256 state;
    state.update(data.data(), cut);
    state.update(data.data() + cut, data.size() - cut);
    CHECK_EQ(state.hex(), sha256(data));
  }
}

TEST(sha256_instructions_equal_plain_code) {
  unsigned char data[64 * 8];
  for (std::size_t i = 0; i < sizeof data; ++i) data[i] = static_cast<unsigned char>(random_word(7, i));
  std::uint32_t a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  sha256_blocks(a, data, 8);
  sha256_blocks_portable(b, data, 8);
  CHECK_EQ(std::memcmp(a, b, sizeof a), 0);
}

TEST(sha256_of_a_file) {
  const std::string path = scratch("sha256") + "/file";
  std::ofstream(path, std::ios::binary) << std::string(5 << 20, 'q');
  std::size_t heard = 0;
  const FileDigest digest = file_digest(path, [&](std::size_t count) { heard += count; });
  CHECK_EQ(digest.size, std::uint64_t{5} << 20);
  CHECK_EQ(heard, std::size_t{5} << 20);
  CHECK_EQ(digest.sha256, sha256(std::string(5 << 20, 'q')));
}
