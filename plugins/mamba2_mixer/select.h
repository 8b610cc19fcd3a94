// Which kernel runs for which shape, and how much memory it needs: pure host functions, no CUDA.
#pragma once

#include <string>

#include "elastic_mamba2.h"

namespace elastic::mamba2 {

// Empty, or what is wrong with the shape: subject, expected, found.
std::string check_shape(const Shape& shape);

// Empty and *plan filled, or why the kernel of that name cannot run this shape.
std::string make_plan(const Shape& shape, const std::string& kernel, int multiprocessors,
                      ElasticMamba2Plan* plan);

const char* kernel_name(int kernel);

}  // namespace elastic::mamba2
