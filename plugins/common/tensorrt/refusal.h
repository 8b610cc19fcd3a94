// What a person reads in TensorRT's log; guarded bodies turn it into TensorRT's error codes.
#pragma once

#include <stdexcept>
#include <string>

namespace elastic::trt {

class Refusal : public std::runtime_error {
 public:
  Refusal(const std::string& op, const std::string& subject, const std::string& expected, const std::string& found)
      : std::runtime_error(op + ": " + subject + ": expected " + expected + ", found " + found) {}
};

}  // namespace elastic::trt
