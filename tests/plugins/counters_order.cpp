// What the counters of a plugin instance ask of CUDA, in order; one line a scene (test_counters.py).
#include <cstdio>

#include "mamba2_mixer/tensorrt/counters.h"

using elastic::mamba2::trt::Counters;

namespace {

template <typename Scene>
void show(const char* name, Scene scene) {
  recording() = {};
  try {
    Counters counters;
    scene(counters);
  } catch (const std::exception& error) {
    recording().said += error.what();
  }
  std::printf("%s: %s\n", name, recording().said.c_str());
}

void call(Counters& counters, const char* stream) {
  counters.zero(stream);
  recording().said += counters.get() ? "kernel; " : "kernel without counters; ";
}

}  // namespace

int main() {
  show("decode", [](Counters& counters) {
    counters.prepare(512);
    counters.reserve(8);
    call(counters, "s");
    call(counters, "s");
  });
  show("a capture that may never be launched", [](Counters& counters) {
    counters.prepare(512);
    counters.reserve(8);
    recording().captures = true;
    call(counters, "s");
    recording().captures = false;
    call(counters, "s");
    call(counters, "s");
  });
  show("another shape", [](Counters& counters) {
    counters.prepare(512);
    for (const int rows : {8, 16}) {
      counters.reserve(rows);
      call(counters, "s");
    }
  });
  show("more rows than were foreseen", [](Counters& counters) {
    counters.prepare(8);
    for (const int rows : {8, 16}) {
      counters.reserve(rows);
      call(counters, "s");
    }
  });
  show("no card while an engine is built", [](Counters& counters) {
    recording().has_memory = false;
    counters.prepare(512);
  });
  show("no memory when it is needed", [](Counters& counters) {
    recording().has_memory = false;
    counters.prepare(512);
    counters.reserve(8);
  });
  show("prefill", [](Counters& counters) {
    counters.reserve(0);
    call(counters, "s");
  });
}
