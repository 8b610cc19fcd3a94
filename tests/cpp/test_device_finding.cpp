// Which card there is and what it has free, by the driver's own library.
#include "check.h"
#include "elastic_runtime/device.h"
#include "elastic_runtime/error.h"
#include "fake_sdk.h"

using namespace elastic;

namespace {

std::string why_none() {
  const InputError error = THROWN(InputError, find_device());
  CHECK(!current_device());
  fake::state() = {};
  return std::string(error.what());
}

}  // namespace

TEST(finding_takes_the_card_that_cuda_counts_before_it_has_a_context) {
  fake::state() = {};
  fake::state().current_card = 1;
  const Device device = find_device();
  CHECK_EQ(device.name + " " + device.compute_capability, "Fake RTX 12.0");
  CHECK_EQ(device.free_bytes, std::int64_t{8} << 30);
  CHECK_EQ(device.total_bytes, std::int64_t{9} << 30);
  CHECK_EQ(fake::state().asked_bus, "0000:66:00.0");
  CHECK_EQ(current_device()->name, "Fake RTX");
}

TEST(finding_says_why_there_is_none) {
  fake::state() = {};
  fake::state().has_driver = false;
  CHECK_EQ(why_none(),
           "GPU memory: expected an NVIDIA driver that says how much is free, found no libnvidia-ml.so.1. "
           "Name it, as "
           "in --vram 12GiB.");
  fake::state().nvml_error = 18;
  CHECK_EQ(why_none(),
           "GPU memory: expected the NVIDIA driver to start, found a driver and a library of different "
           "versions (NVML "
           "error 18). Restart the machine, which loads the driver that was installed.");
  fake::state().nvml_error = 9;
  CHECK_EQ(why_none(),
           "GPU memory: expected the NVIDIA driver to start, found no driver that is loaded (NVML error 9). "
           "Name it "
           "with --vram.");
  fake::state().has_device = false;
  CHECK_EQ(why_none(),
           "GPU memory: expected a card 0 of CUDA, found CUDA error 100. Look at CUDA_VISIBLE_DEVICES, or "
           "name the "
           "memory with --vram.");
}
