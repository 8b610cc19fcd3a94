// What programs that run recorded cases share: the case's header, and device memory that begins as NaN. A case is lines
// "key value...", an empty line, then tensors as raw bytes. Whatever is wrong is thrown, with a text.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <istream>
#include <map>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../device.cuh"
#include "../elastic_plugins.h"

namespace elastic::testing {

[[noreturn]] inline void fail(const std::string& text) { throw std::runtime_error(text); }
inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail(std::string(what) + ": " + cudaGetErrorString(error));
}
inline void check(int32_t status) {
  if (status != ELASTIC_OK) fail(elastic_last_error());
}

class Header {
 public:
  explicit Header(std::istream& in) {
    for (std::string line; std::getline(in, line) && !line.empty();) {
      const auto space = line.find(' ');
      values_[line.substr(0, space)] = line.substr(space + 1);
    }
  }
  const std::string& text(const std::string& key) const {
    const auto found = values_.find(key);
    if (found == values_.end()) fail("case: expected the key " + key + ", found none");
    return found->second;
  }
  int number(const std::string& key) const { return std::atoi(text(key).c_str()); }
  float real(const std::string& key) const { return std::strtof(text(key).c_str(), nullptr); }
  std::vector<int> numbers(const std::string& key) const {
    std::istringstream in(text(key));
    std::vector<int> out;
    for (int value; in >> value;) out.push_back(value);
    return out;
  }

 private:
  std::map<std::string, std::string> values_;
};

constexpr int kPoison = 0xff;

class DeviceBytes {
 public:
  explicit DeviceBytes(std::size_t size) : size_(size) {
    check(cudaMalloc(&data_, size), "cudaMalloc");
    fill(kPoison);
  }
  ~DeviceBytes() { (void)cudaFree(data_); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  void fill(int byte) { check(cudaMemset(data_, byte, size_), "cudaMemset"); }
  void read(std::istream& in) {
    std::vector<char> bytes(size_);
    if (!in.read(bytes.data(), static_cast<std::streamsize>(size_))) fail("case: expected more bytes of tensors");
    check(cudaMemcpy(data_, bytes.data(), size_, cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  std::vector<char> bytes() const {
    std::vector<char> out(size_);
    check(cudaMemcpy(out.data(), data_, size_, cudaMemcpyDeviceToHost), "cudaMemcpy");
    return out;
  }
  void write(std::ostream& out) const { out.write(bytes().data(), static_cast<std::streamsize>(size_)); }
  void* get() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

// Threads and blocks in the order that the case asks for; a card has its own.
inline void set_order([[maybe_unused]] const Header& header) {
#if defined(ELASTIC_HOST_SHIM)
  shim::set_order(static_cast<shim::Order>(header.number("order")), static_cast<std::uint64_t>(header.number("seed")));
#endif
}

// Runs cases on a stream: reads one from `in`, writes what came out to `out`.
using RunCase = void (*)(std::istream& in, std::ostream& out, cudaStream_t stream);

inline void run_file(RunCase run, const std::string& source, const std::string& target, cudaStream_t stream) {
  std::ifstream in(source, std::ios::binary);
  std::ofstream out(target, std::ios::binary);
  if (!in) fail(source + ": expected a case, found no readable file");
  if (!out) fail(target + ": expected to be written, found no way to");
  run(in, out, stream);
  if (!out.flush()) fail(target + ": expected to be written, found an error");
}

// The cases of a list, line CASE and line OUTPUT by turns, one after the other whatever becomes of them.
inline bool run_list(RunCase run, const std::string& list, cudaStream_t stream) {
  std::ifstream in(list);
  bool all = static_cast<bool>(in);
  for (std::string source, target; std::getline(in, source) && std::getline(in, target);) {
    try {
      run_file(run, source, target, stream);
      std::puts("case: ok");
    } catch (const std::exception& error) {
      all = false;
      std::printf("case: %s\n", error.what());
    }
  }
  return all;
}

// A stream that does not wait for the default one, as runtimes have it; the shim knows none.
inline cudaStream_t make_own_stream() {
  cudaStream_t stream = nullptr;
#if !defined(ELASTIC_HOST_SHIM)
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
#endif
  return stream;
}

// The program: [--own-stream] CASE OUTPUT, or [--own-stream] LIST, of whose cases it says "case: ok" or why not, a
// line each.
inline int run_recorded(int count, char** words, RunCase run) {
  try {
    std::vector<std::string> arguments(words + 1, words + count);
    cudaStream_t stream = nullptr;
    if (!arguments.empty() && arguments[0] == "--own-stream") {
      stream = make_own_stream();
      arguments.erase(arguments.begin());
    }
    std::setvbuf(stdout, nullptr, _IOLBF, 1024);  // what was said of cases stays said if a later one ends the process
    if (arguments.size() == 1) return run_list(run, arguments[0], stream) ? 0 : 1;
    if (arguments.size() != 2) fail(std::string("usage: ") + words[0] + " [--own-stream] CASE OUTPUT, or LIST");
    run_file(run, arguments[0], arguments[1], stream);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace elastic::testing
