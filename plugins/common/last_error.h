// What elastic_last_error() answers on this thread.
#pragma once

#include <string>

namespace elastic {
void set_last_error(std::string text);
}  // namespace elastic
