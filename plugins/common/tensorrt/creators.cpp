// The two functions by which TensorRT finds the creators in the library and gives it a logger.
#include "creators.h"

#include <atomic>
#include <cstdio>
#include <iterator>

#include "../elastic_plugins.h"
#include "guard.h"

namespace elastic::trt {
namespace {
std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};
}

void log_error(const char* text) noexcept {
  nvinfer1::ILoggerFinder* finder = logger_finder.load();
  nvinfer1::ILogger* logger = finder ? finder->findLogger() : nullptr;
  if (logger)
    logger->log(nvinfer1::ILogger::Severity::kERROR, text);
  else
    std::fprintf(stderr, "%s\n", text);
}
}  // namespace elastic::trt

extern "C" ELASTIC_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&elastic::mamba2::trt::mixer_creator(),
                                                                &elastic::attention::trt::attention_creator()};
  count = static_cast<int32_t>(std::size(creators));
  return creators;
}

extern "C" ELASTIC_API void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { elastic::trt::logger_finder = finder; }
