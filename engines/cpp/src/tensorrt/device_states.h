// The states of an engine on the device, and copies of them. Private to the library.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <string>
#include <vector>

#include "driver/cuda_memory.h"
#include "elastic_runtime/session.h"
#include "state_block.h"

namespace elastic {

inline std::size_t element_size(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kINT64:
      return 8;
    case nvinfer1::DataType::kFLOAT:
      return 4;
    case nvinfer1::DataType::kHALF:
    case nvinfer1::DataType::kBF16:
      return 2;
    case nvinfer1::DataType::kINT8:
      return 1;
    default:
      return 0;
  }
}

/// A state and its buffers: one when the engine works in place (`must`), two that change places after each
/// call.
struct DeviceState {
  std::string input, output;
  std::size_t row_bytes = 0;
  bool in_place = false;
  StateBlock block;  // of one sequence
  cuda::Device buffers[2];

  void* read(int side) const { return buffers[in_place ? 0 : side].get(); }
  void* write(int side) const { return buffers[in_place ? 0 : 1 - side].get(); }
};

/// The kept rows of every state of all sequences, on the device or in main memory.
struct SavedDeviceStates : SavedStates {
  std::int64_t bytes() const override { return static_cast<std::int64_t>(size); }

  StateLayout layout;
  std::int64_t rows = 0;
  std::size_t size = 0;
  std::vector<cuda::Device> device;  // one of them is empty
  std::vector<std::vector<std::byte>> host;
};

}  // namespace elastic
