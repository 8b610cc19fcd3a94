// The bounds of what a program may ask for: those of session_request.py. Private to the library.
#pragma once

#include <cstdint>
#include <string>

#include "elastic_runtime/error.h"
#include "elastic_runtime/opening.h"

namespace elastic {

namespace most {
constexpr std::int64_t kTokens = (std::int64_t{1} << 53) - 1;
constexpr std::int64_t kRows = std::int64_t{1} << 31;
/// onnxruntime starts every thread that it is asked for, and at 100,000 of them never ends.
constexpr std::int64_t kThreads = 1024;
constexpr std::int64_t kBytes = std::int64_t{1} << 60;
}  // namespace most

inline void check_size(const std::string& name, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value < least)
    throw InputError(name, "at least " + std::to_string(least), std::to_string(value), "name a larger one");
  if (value > most) throw InputError(name, "at most " + std::to_string(most), "more", "name a smaller one");
}

/// Throws InputError, naming the size as the caller knows it.
inline void check_sizes(const OnnxOptions& options, const char* context = "max_context",
                        const char* batch = "max_batch") {
  check_size(context, options.max_context, 1, most::kTokens);
  check_size(batch, options.max_batch, 1, most::kRows);
  check_size("max_tokens", options.max_tokens, 1, most::kTokens);
  check_size("threads", options.threads, 0, most::kThreads);
}

/// The same of a request; what it says takes the place of the like in its options.
inline void check_sizes(const OpenRequest& request) {
  if (request.vram) check_size("vram", *request.vram, 0, most::kBytes);
  OnnxOptions host = request.host;
  host.max_batch = request.batch;
  if (request.context) host.max_context = *request.context;
  check_sizes(host, request.context ? "context" : "max_context", "batch");
}

}  // namespace elastic
