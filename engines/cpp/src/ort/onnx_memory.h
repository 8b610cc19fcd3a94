// Where onnxruntime computes and a model's weights and states lie: main memory, or the card of its CUDA
// provider. Private to the library.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstddef>
#include <functional>
#include <memory>

namespace elastic::onnx {

/// Memory and how it is given back.
using Bytes = std::unique_ptr<void, std::function<void(void*)>>;

/// Rows of a copy: `height` of them, `width` bytes of each.
struct Rows {
  std::size_t height = 0, width = 0;
};

class Memory {
 public:
  virtual ~Memory() = default;

  /// Makes a session compute there. Throws UnavailableError where it cannot.
  virtual void add_provider(OrtSessionOptions* options) const = 0;

  /// What onnxruntime calls it.
  virtual const OrtMemoryInfo* info() const = 0;

  /// Whether the CPU reads and writes it as its own.
  virtual bool is_host() const = 0;

  /// Throws BuildError where there is no room, on a card UnavailableError.
  virtual Bytes allocate(std::size_t bytes) = 0;

  virtual void zero(void* memory, std::size_t bytes) = 0;

  /// Rows `pitch` bytes apart, either side here or in main memory; complete when it returns.
  virtual void copy(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, Rows rows) = 0;
};

std::unique_ptr<Memory> make_host_memory();

/// That of CUDA's current card. Throws UnavailableError as `check_card_provider`, and where CUDA does not
/// start on it.
std::unique_ptr<Memory> make_card_memory();

/// Throws UnavailableError: onnxruntime was built without its CUDA provider, or this library without CUDA.
/// Whether the provider's own libraries are there shows with the first session.
void check_card_provider();

}  // namespace elastic::onnx
