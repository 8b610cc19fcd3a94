// What the counters of a plugin instance ask of CUDA, in order; one line a scene (test_counters.py).
#include <cstdio>

#include "mamba2_mixer/tensorrt/counters.h"

using elastic::mamba2::trt::Counters;

namespace {

void show(const std::string& name, const std::function<void(Counters&)>& scene) {
  recording() = {};
  {
    Counters counters;
    try {
      scene(counters);
    } catch (const std::exception& error) {
      recording().said += error.what() + std::string("; ");
    }
    if (recording().last != cudaSuccess) recording().said += "an error is left for others to find; ";
  }
  if (recording().mode == cudaStreamCaptureModeRelaxed) recording().said += "the mode is left relaxed; ";
  std::printf("%s: %s\n", name.c_str(), recording().said.c_str());
}

// A call of a shape that needs `count` counters, on somebody's stream.
void call(Counters& counters, int count) {
  recording().said += "call; ";
  counters.reserve(count);
  bool zeros = true;
  for (int i = 0; i < count; ++i) zeros = zeros && counters.get()[i] == 0;
  recording().said += count == 0 ? "kernel that counts nothing; " : (zeros ? "kernel; " : "kernel on other values; ");
}

void attached(Counters& counters, int count) {
  counters.prepare(count);
  recording().said = "attached; ";
}

}  // namespace

int main() {
  show("attach", [](Counters& counters) { counters.prepare(512); });
  show("decode", [](Counters& counters) {
    attached(counters, 512);
    for (const int rows : {8, 8, 512, 16}) call(counters, rows);
  });
  show("prefill", [](Counters& counters) {
    attached(counters, 512);
    for (const int rows : {0, 0, 8, 0, 8}) call(counters, rows);
  });
  show("prefill of a plugin that got no memory", [](Counters& counters) {
    recording().failing = "malloc";
    attached(counters, 512);
    call(counters, 0);
  });
  show("recorded", [](Counters& counters) {
    attached(counters, 512);
    recording().records = Records::kThisThread;
    for (const int rows : {8, 0, 16}) call(counters, rows);
    recording().records = Records::kNobody;
  });
  show("more rows than were foreseen", [](Counters& counters) {
    attached(counters, 8);
    for (const int rows : {8, 16, 8}) call(counters, rows);
  });
  for (const auto& [name, who] :
       {std::pair("by this thread", Records::kThisThread), std::pair("by another", Records::kAnother)})
    show(std::string("recorded ") + name + ", more rows than were foreseen", [&, who = who](Counters& counters) {
      attached(counters, 8);
      recording().records = who;
      call(counters, 16);
    });
  show("a thread of another mode", [](Counters& counters) {
    recording().mode = cudaStreamCaptureModeThreadLocal;
    counters.prepare(8);
  });
  show("no card while an engine is built", [](Counters& counters) {
    recording().failing = "stream";
    counters.prepare(512);
  });
  for (const char* failing : {"mode", "stream", "malloc", "set", "wait"})
    show(std::string("no ") + failing, [&](Counters& counters) {
      recording().failing = failing;
      recording().records = Records::kThisThread;
      counters.reserve(8);
    });
  show("memory at the second try", [](Counters& counters) {
    recording().failing = "malloc";
    attached(counters, 8);
    recording().failing = "";
    call(counters, 8);
  });
}
