#include "last_error.h"

#include <utility>

#include "elastic_plugins.h"

namespace elastic {
namespace {
thread_local std::string last_error;
}

void set_last_error(std::string text) { last_error = std::move(text); }
}  // namespace elastic

extern "C" const char* elastic_last_error(void) { return elastic::last_error.c_str(); }
