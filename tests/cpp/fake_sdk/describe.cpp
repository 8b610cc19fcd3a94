// The stand-in card as the environment describes it: ELASTIC_STAND_IN="driver=12080 validity=2", before main
// begins.
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>

#include "fake_sdk.h"

namespace {

void set(const std::string& name, const std::string& value) {
  fake::State& state = fake::state();
  if (name == "refused")
    state.refused = value;
  else if (name == "driver")
    state.driver = std::stoi(value);
  else if (name == "has_driver")
    state.has_driver = value == "1";
  else if (name == "nvml_error")
    state.nvml_error = std::stoi(value);
  else if (name == "minor")
    state.minor = std::stoi(value);
  else if (name == "version")
    state.version[1] = std::stoi(value);
  else if (name == "free_bytes")
    state.free_bytes = std::stoull(value);
  else if (name == "room")
    state.room = std::stoull(value);
  else if (name == "fails_at")
    state.fails_at = std::stoi(value);
  else if (name == "has_provider")
    state.has_provider = value == "1";
  else if (name == "provider_fails")
    state.provider_fails = value;
  else
    throw std::logic_error("no such fact of the stand-in: " + name);
}

const bool described = [] {
  const char* text = std::getenv("ELASTIC_STAND_IN");
  std::istringstream words(text ? text : "");
  for (std::string word; words >> word;) set(word.substr(0, word.find('=')), word.substr(word.find('=') + 1));
  return true;
}();

}  // namespace
