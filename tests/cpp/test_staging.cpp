// Weights on their way to a card, through buffers whose copies stand-ins make: no GPU, no SDK.
#include <cstring>
#include <optional>
#include <vector>

#include "check.h"
#include "driver/staging.h"
#include "elastic_runtime/slicing.h"
#include "fake_sdk.h"

using namespace elastic;

TEST(device_weights_pass_through_two_buffers_in_turn) {
  fake::state() = {};
  const cuda::Stream stream = cuda::make_stream();
  std::vector<std::byte> file(300);
  for (std::size_t i = 0; i < file.size(); ++i) file[i] = static_cast<std::byte>(i * 7);
  const std::vector<Block> blocks = {{0, 0, 100, 1, 100, 100},  // one piece, longer than a buffer
                                     {100, 100, 5, 10, 20, 5},  // rows that become one piece
                                     {103, 150, 4, 9, 20, 6}};  // rows apart on both sides
  std::vector<std::byte> wanted(204, std::byte{0xEE});
  read_blocks(reader_of(file.data()), wanted.data(), blocks);
  const cuda::Device memory = cuda::allocate(wanted.size(), "a test");
  std::size_t heard = 0;
  {
    cuda::Staging staging(stream.get(), 48);
    staging.copy(reader_of(file.data()), memory.get(), blocks, [&](std::size_t bytes) { heard += bytes; });
    CHECK(cudaStreamSynchronize(stream.get()) == cudaSuccess);
    CHECK_EQ(fake::state().pinned.size(), 2u);
  }
  CHECK(std::memcmp(memory.get(), wanted.data(), wanted.size()) == 0);
  CHECK_EQ(heard, 100u + (8 * 20 + 5) + 5 + (8 * 20 + 4));  // nine rows a buffer, and one; nine
  CHECK_EQ(fake::state().pinned.size(), 0u);
}

TEST(device_columns_of_the_same_rows_are_read_and_copied_together) {
  fake::state() = {};
  const cuda::Stream stream = cuda::make_stream();
  const std::vector<std::int64_t> shape = {40, 96};
  const TensorRuns runs = {{{0, 20}, {30, 5}}, {{1, 8}, {16, 8}, {40, 3}, {64, 32}}};
  std::vector<std::byte> file(40 * 96);
  for (std::size_t i = 0; i < file.size(); ++i) file[i] = static_cast<std::byte>(i * 7 + i / 96);
  const Window beside{{25, 60}, 1, 4};
  for (const auto& window : {std::optional<Window>(), std::optional(beside)}) {
    const std::vector<Block> blocks = strided_blocks(shape, runs, 1, window);
    std::vector<std::byte> wanted(25 * 60, std::byte{0xEE});
    read_blocks(reader_of(file.data()), wanted.data(), blocks);
    const cuda::Device memory = cuda::allocate(wanted.size(), "a test");
    std::memset(memory.get(), 0xEE, wanted.size());
    std::vector<std::size_t> heard;
    cuda::Staging staging(stream.get(), 510);
    staging.copy(reader_of(file.data()), memory.get(), blocks,
                 [&](std::size_t bytes) { heard.push_back(bytes); });
    CHECK(cudaStreamSynchronize(stream.get()) == cudaSuccess);
    CHECK(std::memcmp(memory.get(), wanted.data(), wanted.size()) == 0);
    const std::vector<std::size_t> ten_ten_five = {9 * 96 + 95, 9 * 96 + 95,
                                                   4 * 96 + 95};  // rows of 51 bytes
    CHECK(heard == ten_ten_five);
  }
}

TEST(device_rows_longer_than_a_buffer_come_in_pieces) {
  fake::state() = {};
  const cuda::Stream stream = cuda::make_stream();
  const TensorRuns kept[] = {
      {{{0, 3}}, {{2, 60}, {100, 70}}},   // columns longer than a buffer,
      {{{1, 3}}, {{2, 30}, {100, 30}}}};  // and shorter ones, which are longer together
  std::vector<std::byte> file(4 * 200);
  for (std::size_t i = 0; i < file.size(); ++i) file[i] = static_cast<std::byte>(i * 7 + i / 200);
  for (const TensorRuns& runs : kept) {
    const std::vector<Block> blocks = strided_blocks({4, 200}, runs, 1, Window{{3, 150}, 1, 4});
    std::vector<std::byte> wanted(3 * 150, std::byte{0xEE});
    read_blocks(reader_of(file.data()), wanted.data(), blocks);
    const cuda::Device memory = cuda::allocate(wanted.size(), "a test");
    cuda::Staging staging(stream.get(), 48);
    const auto is_held = [](std::size_t bytes) { CHECK(bytes <= 48); };
    staging.copy(reader_of(file.data()), memory.get(), blocks, is_held);
    CHECK(cudaStreamSynchronize(stream.get()) == cudaSuccess);
    CHECK(std::memcmp(memory.get(), wanted.data(), wanted.size()) == 0);
  }
}
