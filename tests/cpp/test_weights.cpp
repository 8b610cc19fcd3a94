#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#ifndef _WIN32
#include <sys/resource.h>
#endif

#include "check.h"
#include "elastic_runtime/sampler.h"
#include "elastic_runtime/sha256.h"
#include "elastic_runtime/weights.h"

using namespace elastic;
using namespace elastic_test;

namespace {

void write_words(const std::string& path, std::uint64_t seed, std::int64_t bytes) {
  std::string data(static_cast<std::size_t>(bytes), '\0');
  for (std::size_t i = 0; i < data.size(); i += 8) {
    const std::uint64_t word = random_word(seed, i / 8);
    for (std::size_t k = 0; k < 8 && i + k < data.size(); ++k)
      data[i + k] = static_cast<char>(word >> (8 * k) & 255);
  }
  std::ofstream(path, std::ios::binary) << data;
}

/// The slice element by element: what every faster way must give.
std::vector<std::byte> plain_slice(const std::byte* source, const std::vector<std::int64_t>& shape,
                                   const TensorRuns& runs, std::size_t itemsize, std::size_t axis = 0) {
  if (axis == shape.size()) return std::vector<std::byte>(source, source + itemsize);
  std::int64_t stride = static_cast<std::int64_t>(itemsize);
  for (std::size_t i = axis + 1; i < shape.size(); ++i) stride *= shape[i];
  std::vector<std::byte> result;
  for (const Run& run : runs[axis]) {
    for (std::int64_t i = run.start; i < run.start + run.count; ++i) {
      const auto part = plain_slice(source + i * stride, shape, runs, itemsize, axis + 1);
      result.insert(result.end(), part.begin(), part.end());
    }
  }
  return result;
}

/// Random ascending runs of an axis, at least one.
Runs random_runs(std::int64_t size, std::uint64_t& word) {
  Runs runs;
  for (std::int64_t at = 0; at < size;) {
    const std::uint64_t dice = random_word(99, word++);
    const std::int64_t count = 1 + static_cast<std::int64_t>(dice % static_cast<std::uint64_t>(size - at));
    if (dice >> 32 & 1) runs.push_back({at, count});
    at += count;
  }
  if (runs.empty()) runs.push_back({0, size});
  return runs;
}

/// Cuts the slices of a golden file as Python has them.
void check_slices(const Value& file) {
  const std::string folder = scratch("slices");
  write_words(folder + "/parent.bin", static_cast<std::uint64_t>(integer(at(file, "seed"))),
              integer(at(file, "bytes")));
  const WeightFiles files(parse_recipe(at(file, "recipe").dump()), folder + "/budget", folder);
  const Array& wanted = items(at(file, "sha256"));
  CHECK_EQ(files.recipe().inputs.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const Weight weight = files.load(files.recipe().inputs[i]);
    CHECK_EQ(sha256({reinterpret_cast<const char*>(weight.data), weight.size}), text(wanted[i]));
  }
}

}  // namespace

TEST(weights_equal_python) { check_slices(golden("slices.json")); }

TEST(weights_in_eight_bits_equal_python) {
  const Value file = golden("slices_int8.json");
  check_slices(file);
  CHECK_EQ(parse_recipe(at(file, "recipe").dump()).nbytes(), integer(at(file, "nbytes")));
}

TEST(weights_blocks_equal_plain_slicing) {
  std::uint64_t word = 0;
  for (int round = 0; round < 400; ++round) {
    std::vector<std::int64_t> shape;
    TensorRuns runs;
    const std::size_t axes = 1 + random_word(98, word++) % 4;
    for (std::size_t i = 0; i < axes; ++i) {
      shape.push_back(1 + static_cast<std::int64_t>(random_word(98, word++) % 6));
      runs.push_back(random_runs(shape.back(), word));
    }
    const std::size_t itemsize = std::size_t{1} << (round % 3);
    std::vector<std::byte> source(itemsize);
    for (const std::int64_t size : shape) source.resize(source.size() * static_cast<std::size_t>(size));
    for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(i * 7 % 251);
    const auto wanted = plain_slice(source.data(), shape, runs, itemsize);
    std::vector<std::byte> got(wanted.size());
    read_blocks(reader_of(source.data()), got.data(), strided_blocks(shape, runs, itemsize));
    CHECK(got == wanted);
  }
}

TEST(weights_of_many_megabytes_equal_plain_slicing) {
  const std::string folder = scratch("large");
  write_words(folder + "/w.bin", 5, 3 + 2500 * 2400);
  const std::string start = R"({"schema": "elastic-weights/2", "inputs": {"a": {"file": "w.bin", "offset": 3,
      "dtype": "int8", )";
  const auto heads = [](int groups) {
    std::string runs;
    for (int head = 0; head < groups * 12; ++head)
      runs += (runs.empty() ? "[" : ", [") + std::to_string(head / 12 * 999 + head % 12 * 80) + ", 63]";
    return "[" + runs + "]";
  };
  // Rows in pieces of two columns, of 24 heads; pieces of a long row, whole rows in between, rows longer than
  // a band.
  for (const std::string& cut : {
           std::string(R"("parent_shape": [2500, 2400], "shape": [2500, 2000],
                          "runs": [[[0, 2500]], [[0, 1000], [1300, 1000]]])"),
           R"("parent_shape": [2500, 2400], "shape": [2400, 1512], "runs": [[[0, 1200], [1300, 1200]], )" +
               heads(2) + "]",
           std::string(R"("parent_shape": [6000000], "shape": [4000001],
                          "runs": [[[1, 1], [3, 2000000], [3999999, 2000000]]])"),
           std::string(R"("parent_shape": [2500, 2400], "shape": [2000, 2400],
                          "runs": [[[0, 1000], [1500, 1000]], [[0, 2400]]])"),
           std::string(R"("parent_shape": [5, 1200000], "shape": [3, 1000001],
                          "runs": [[[0, 1], [3, 2]], [[7, 1000000], [1100000, 1]]])"),
       }) {
    const WeightFiles files(parse_recipe(start + cut + "}}}"), folder);
    const WeightInput& input = files.recipe().inputs[0];
    const StoredSlice& part = input.parts[0];
    const Weight weight = files.load(input);
    const auto wanted = plain_slice(files.sources(input)[0].data(), part.parent_shape, part.runs, 1);
    CHECK_EQ(weight.size, wanted.size());
    CHECK(std::memcmp(weight.data, wanted.data(), wanted.size()) == 0);
  }
}

TEST(weights_short_columns_of_a_long_row_are_read_together) {
  const std::size_t row = std::size_t{1} << 20, count = 20000;
  std::vector<std::byte> source(3 * row);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(i * 7 % 251);
  Runs columns;
  for (std::size_t i = 0; i < count; ++i) columns.push_back({static_cast<std::int64_t>(i * 50), 3});
  const TensorRuns runs = {{{1, 2}}, columns};
  const std::vector<std::int64_t> shape = {3, static_cast<std::int64_t>(row)};
  const auto wanted = plain_slice(source.data(), shape, runs, 1);
  std::vector<std::byte> got(wanted.size());
  std::atomic<int> reads{0};
  const auto read = [&](std::uint64_t at, std::byte* into, std::size_t size) {
    ++reads;
    reader_of(source.data())(at, into, size);
  };
  read_blocks(read, got.data(), strided_blocks(shape, runs, 1));
  CHECK(got == wanted);
  CHECK_EQ(reads.load(), 4);  // of at most 512 KiB
}

TEST(weights_reading_ends_with_the_first_failure) {
  const std::size_t size = std::size_t{64} << 20;
  std::vector<std::byte> target(size);
  const std::vector<Block> block = {{0, 0, size, 1, size, size}};
  std::atomic<int> reads{0};
  const auto read = [&](std::uint64_t at, std::byte* into, std::size_t count) {
    ++reads;
    if (at > size / 4) throw InputError("w.bin", "bytes", "none");
    std::memset(into, 1, count);
  };
  CHECK_EQ(THROWN(InputError, read_blocks(read, target.data(), block)).subject, "w.bin");
  CHECK(reads <= 32 + 1 + 4);  // what lies before, and a band a thread
  std::size_t heard = 0;
  const auto hear = [&](std::size_t bytes) {
    heard += bytes;
    if (heard > size / 8) throw BuildError("loading", "patience", "none");
  };
  CHECK_EQ(THROWN(BuildError, read_blocks([](auto, auto, auto) {}, target.data(), block, hear)).subject,
           "loading");
  CHECK(heard < size / 4);
}

TEST(weights_of_a_file_cut_short_meanwhile_name_the_byte) {
  const std::string folder = scratch("cut_short"), path = folder + "/w.bin";
  write_words(path, 3, 4096);
  const MappedFile file(path);
  std::filesystem::resize_file(path, 1000);
  std::vector<std::byte> into(200);
  file.read(800, into.data(), into.size());
  const auto error = THROWN(InputError, file.read(900, into.data(), into.size()));
  CHECK_EQ(std::string(error.what()),
           path + ": expected bytes from 1000 on, found its end. Copy that file again.");
}

#ifndef _WIN32
TEST(weights_of_files_that_the_system_refuses_come_with_advice) {
  const std::string path = scratch("refused") + "/w.bin";
  write_words(path, 3, 8);
  rlimit before{};
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto error = THROWN(InputError, MappedFile{path});
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  CHECK_EQ(error.todo, std::string("raise the limit of open files (ulimit -n)"));
}
#endif

TEST(weights_of_the_budgets_own_folder_stay_there) {
  const std::string folder = scratch("own");
  std::filesystem::create_directories(folder + "/budget");
  std::filesystem::create_directories(folder + "/elsewhere");
  write_words(folder + "/elsewhere/parent.bin", 4, 64);
  write_words(folder + "/budget/own.bin", 5, 64);
  const std::string rest = R"("offset": 0, "dtype": "fp32", "parent_shape": [8], "shape": [8],
      "runs": [[[0, 8]]]})";
  const std::string recipe = R"({"inputs": {"a": {"file": "../weights/parent.bin", )" + rest +
                             R"(, "b": {"file": "own.bin", )" + rest + "}}";
  const WeightFiles files(parse_recipe(recipe), folder + "/budget", folder + "/elsewhere");
  for (const auto& [input, seed] : {std::pair{0, 4}, {1, 5}}) {
    const Weight weight = files.load(files.recipe().inputs[static_cast<std::size_t>(input)]);
    const std::uint64_t word = random_word(static_cast<std::uint64_t>(seed), 0);
    CHECK_EQ(std::memcmp(weight.data, &word, sizeof word), 0);
  }
}

TEST(weights_one_run_is_one_block) {
  const auto count = [](std::vector<std::int64_t> shape, TensorRuns runs) {
    const auto blocks = strided_blocks(shape, runs, 2);
    return blocks.size() == 1 && blocks[0].contiguous();
  };
  CHECK(count({6, 5}, {{{0, 6}}, {{0, 5}}}));
  CHECK(count({6, 5}, {{{1, 2}, {3, 2}}, {{0, 5}}}));
  CHECK(count({6, 1, 4}, {{{2, 3}}, {{0, 1}}, {{0, 4}}}));
  CHECK(count({6, 5}, {{{2, 1}}, {{1, 3}}}));
  CHECK(count({7}, {{{3, 2}}}));
  CHECK(!count({6, 5}, {{{0, 6}}, {{0, 4}}}));
  CHECK(!count({6, 5}, {{{0, 1}, {2, 1}}, {{0, 5}}}));
}

TEST(weights_views_copy_nothing) {
  const std::string folder = scratch("views");
  write_words(folder + "/w.bin", 3, 4096);
  const std::string recipe =
      R"({"inputs": {"a": {"file": "w.bin", "offset": 10, "dtype": "fp16", "parent_shape": [8, 4],
      "shape": [3, 4], "runs": [[[2, 3]], [[0, 4]]]}}})";
  const WeightFiles files(parse_recipe(recipe), folder);
  const WeightInput& input = files.recipe().inputs[0];
  CHECK(files.load(input).data == files.sources(input)[0].data() + 2 * 4 * 2);
}

TEST(weights_parts_lie_behind_each_other) {
  const std::string folder = scratch("parts");
  for (const char* name : {"a", "b", "c"}) {
    std::ofstream file(folder + "/" + name, std::ios::binary);
    for (std::uint16_t i = 0; i < 24; ++i) {
      const auto value = static_cast<std::uint16_t>(100 * (name[0] - 'a') + i);
      file.write(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }
  struct Case {
    std::vector<StoredSlice> parts;
    std::size_t axis;
    std::vector<std::int64_t> shape;
    std::vector<std::uint16_t> wanted;
  };
  const auto part = [](const char* file, std::vector<std::int64_t> parent, TensorRuns runs,
                       std::int64_t offset = 0) {
    StoredSlice slice{file, offset, "fp16", std::move(parent), {}, std::move(runs)};
    for (const Runs& axis : slice.runs) {
      slice.shape.push_back(0);
      for (const Run& run : axis) slice.shape.back() += run.count;
    }
    return slice;
  };
  const Runs two = {{0, 2}}, apart = {{0, 1}, {2, 1}}, one = {{0, 1}};
  const std::vector<Case> table = {
      {{part("a", {6, 4}, {{{2, 1}}, two})}, 0, {1, 2}, {8, 9}},
      {{part("a", {6, 4}, {apart, two}), part("b", {3, 2}, {one, two})}, 0, {3, 2}, {0, 1, 8, 9, 100, 101}},
      {{part("a", {6, 4}, {apart, two}), part("b", {2, 3}, {two, one})}, 1, {2, 3}, {0, 1, 100, 8, 9, 103}},
      {{part("a", {2}, {two}), part("b", {3}, {{{1, 2}}}), part("c", {1}, {one}, 2)},
       0,
       {5},
       {0, 1, 101, 102, 201}},
      // size 1 on the axis, whole behind it; whole on all axes; the axis between two others
      {{part("a", {1, 2}, {one, two}), part("b", {1, 2}, {one, two})}, 0, {2, 2}, {0, 1, 100, 101}},
      {{part("a", {2, 1}, {two, one}), part("b", {2, 1}, {two, one})}, 1, {2, 2}, {0, 100, 1, 101}},
      {{part("a", {2, 1, 2}, {two, one, two}), part("b", {2, 2, 2}, {two, two, two})},
       1,
       {2, 3, 2},
       {0, 1, 100, 101, 102, 103, 2, 3, 104, 105, 106, 107}},
      {{part("a", {2, 2, 3, 2}, {two, two, {{1, 1}}, one}), part("b", {2, 2, 1, 1}, {two, two, one, one})},
       3,
       {2, 2, 1, 2},
       {2, 100, 8, 101, 14, 102, 20, 103}},
  };
  for (const Case& row : table) {
    const WeightFiles files({{{"w", row.parts, row.axis}}, "r"}, folder);
    const WeightInput& input = files.recipe().inputs[0];
    CHECK(input.shape() == row.shape);
    CHECK_EQ(input.nbytes(), static_cast<std::int64_t>(2 * row.wanted.size()));
    std::size_t heard = 0;
    const Weight weight = files.load(input, [&](std::size_t bytes) { heard += bytes; });
    CHECK_EQ(weight.size, 2 * row.wanted.size());
    CHECK(std::memcmp(weight.data, row.wanted.data(), weight.size) == 0);
    CHECK((heard > 0) == (row.parts.size() > 1));
  }
}

TEST(weights_parts_that_make_no_tensor_are_refused_by_name) {
  const auto part = [](const char* dtype, std::vector<std::int64_t> shape) {
    StoredSlice slice{"w.bin", 0, dtype, shape, shape, {}};
    for (const std::int64_t size : shape) slice.runs.push_back({{0, size}});
    return slice;
  };
  const auto refused = [](std::vector<StoredSlice> parts, std::size_t axis) {
    return THROWN(InputError, WeightFiles({{{"qkv", std::move(parts), axis}}, "r"}, scratch("no_tensor")));
  };
  CHECK_EQ(std::string(refused({}, 0).what()), "weight qkv: expected parts of one dtype, found none.");
  CHECK_EQ(std::string(refused({part("fp32", {2}), part("bf16", {2}), part("fp32", {2})}, 0).what()),
           "weight qkv: expected parts of one dtype, found fp32 and bf16.");
  CHECK_EQ(std::string(refused({part("fp32", {2, 3}), part("fp32", {2, 4})}, 0).what()),
           "weight qkv: expected parts that agree on all axes but 0, found (2, 3) and (2, 4).");
  CHECK_EQ(std::string(refused({part("fp32", {2, 3}), part("fp32", {2})}, 1).what()),
           "weight qkv: expected parts that agree on all axes but 1, found (2, 3) and (2,).");
  CHECK_EQ(std::string(refused({part("fp32", {2, 3})}, 2).what()),
           "weight qkv: expected parts that agree on all axes but 2, found (2, 3).");
}

TEST(weights_missing_and_short_files) {
  const std::string folder = scratch("short");
  const std::string recipe =
      R"({"inputs": {"a": {"file": "w.bin", "offset": 100, "dtype": "fp32", "parent_shape": [8],
      "shape": [8], "runs": [[[0, 8]]]}}})";
  const auto missing = THROWN(InputError, WeightFiles(parse_recipe(recipe), folder));
  CHECK_EQ(missing.subject + "|" + missing.todo, "weights.json: a|name the folder of the weights");
  write_words(folder + "/w.bin", 3, 131);
  const auto shorter = THROWN(InputError, WeightFiles(parse_recipe(recipe), folder));
  CHECK_EQ(shorter.found + "|" + shorter.todo, "131 bytes|copy that file again");
  write_words(folder + "/w.bin", 3, 132);
  CHECK_EQ(WeightFiles(parse_recipe(recipe), folder).load(parse_recipe(recipe).inputs[0]).size, 32u);
}
