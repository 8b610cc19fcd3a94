#include "cuda_shim.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "fiber.h"

namespace elastic::shim {

Self* self = nullptr;

namespace {

constexpr int kLanes = 32;
constexpr int kResident = 6;  // blocks under way at a time: what one of them does too early, another may see
constexpr unsigned char kPoison = 0xff;  // all ones is a NaN in every floating type

enum class Wait { kNothing, kWarp, kBlock, kDone };

struct Block;

struct Thread {
  Self place;
  Fiber fiber;
  Block* block = nullptr;
  Wait wait = Wait::kDone;
  unsigned shuffles = 0;  // shuffles this lane has entered
};

// Two buffers of exchanged values: a lane that is one shuffle ahead must not overwrite what a slower one
// reads.
struct Warp {
  float slot[2][kLanes];
  int first = 0, lanes = 0, arrived = 0;
  std::vector<int> order;
};

struct SharedArray {
  const void* key;
  std::unique_ptr<unsigned char, decltype(&std::free)> bytes;
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;  // the pool; the first `count` take part
  std::vector<Warp> warps;
  std::vector<SharedArray> arrays;
  int count = 0, live = 0, at_barrier = 0;
  int starved = -1;  // the warp that runs only when nothing else can
};

Thread* running = nullptr;
const std::function<void()>* running_kernel = nullptr;
Order order = Order::kForward;
std::mt19937_64 generator;

std::vector<int> ordered(int count) {
  std::vector<int> indices(count);
  std::iota(indices.begin(), indices.end(), 0);
  if (order == Order::kReversed) std::reverse(indices.begin(), indices.end());
  if (order == Order::kRandom) std::shuffle(indices.begin(), indices.end(), generator);
  return indices;
}

int draw(std::size_t count) { return static_cast<int>(generator() % count); }

// Blocks that work together are neighbours: a random order keeps them so in one launch of two.
std::vector<int> block_order(int count) {
  std::vector<int> indices = ordered(count);
  if (order == Order::kRandom && draw(2) == 0) std::sort(indices.begin(), indices.end());
  return indices;
}

void release_barrier_if_complete(Block& block) {
  if (block.at_barrier == 0 || block.at_barrier < block.live) return;
  block.at_barrier = 0;
  for (int i = 0; i < block.count; ++i)
    if (block.threads[i]->wait == Wait::kBlock) block.threads[i]->wait = Wait::kNothing;
}

void run_thread() {
  Thread& me = *running;
  me.fiber.arrived();
  (*running_kernel)();
  me.wait = Wait::kDone;
  --me.block->live;
  release_barrier_if_complete(*me.block);
  me.fiber.leave_for_good();
}

// Runs the lanes of one warp until none of them can go on; true if any did.
bool run_warp(Block& block, const Warp& warp) {
  bool any = false;
  for (bool progress = true; progress; any |= progress) {
    progress = false;
    // A random starting point in a random permutation: lanes meet in ever new orders at little cost.
    const std::size_t shift = order == Order::kRandom ? draw(warp.order.size()) : 0;
    for (std::size_t i = 0; i < warp.order.size(); ++i) {
      Thread& thread = *block.threads[warp.first + warp.order[(i + shift) % warp.order.size()]];
      if (thread.wait != Wait::kNothing) continue;
      running = &thread;
      self = &thread.place;
      thread.fiber.resume();
      progress = true;
    }
  }
  return any;
}

void start_threads(Block& block, const dim3& grid, const dim3& size, unsigned index) {
  while (static_cast<int>(block.threads.size()) < block.count)
    block.threads.push_back(std::make_unique<Thread>());
  const dim3 place(index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y);
  for (int i = 0; i < block.count; ++i) {
    Thread& thread = *block.threads[i];
    const unsigned flat = static_cast<unsigned>(i);
    thread.place = {dim3(flat % size.x, flat / size.x % size.y, flat / size.x / size.y), place, size, grid};
    thread.block = &block;
    thread.wait = Wait::kNothing;
    thread.shuffles = 0;
    thread.fiber.start(run_thread);
  }
}

void start_block(Block& block, const dim3& grid, const dim3& size, unsigned index) {
  block.count = block.live = static_cast<int>(size.x * size.y * size.z);
  block.at_barrier = 0;
  block.arrays.clear();
  start_threads(block, grid, size, index);
  block.warps.assign((block.count + kLanes - 1) / kLanes, Warp());
  for (std::size_t w = 0; w < block.warps.size(); ++w) {
    block.warps[w].first = static_cast<int>(w) * kLanes;
    block.warps[w].lanes = std::min(kLanes, block.count - block.warps[w].first);
    block.warps[w].order = ordered(block.warps[w].lanes);
  }
  block.starved = order == Order::kRandom ? draw(block.warps.size()) : -1;
}

// One turn for every warp but the starved ones; true if any could go on.
bool run_turn(Block& block) {
  bool any = false;
  for (int w : ordered(static_cast<int>(block.warps.size())))
    if (w != block.starved) any |= run_warp(block, block.warps[w]);
  return any;
}

// Nothing else can go on: one starved warp gets its turn, and another warp its place.
bool feed_one(std::vector<Block>& resident) {
  for (int b : ordered(static_cast<int>(resident.size()))) {
    Block& block = resident[b];
    if (block.live == 0 || block.starved < 0) continue;
    const int fed = std::exchange(block.starved, draw(block.warps.size()));
    if (run_warp(block, block.warps[fed])) return true;
    block.starved = fed;
  }
  return false;
}

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "host shim: %s\n", what);
  std::abort();
}

}  // namespace

void barrier() {
  Thread& me = *running;
  me.wait = Wait::kBlock;
  ++me.block->at_barrier;
  release_barrier_if_complete(*me.block);
  // Even the last one to arrive goes to the back of the queue.
  me.fiber.yield();
}

float shuffle(float value, int source_lane) {
  Thread& me = *running;
  const int index = static_cast<int>(me.place.thread.x);  // kernels are one-dimensional
  Warp& warp = me.block->warps[index / kLanes];
  float* slot = warp.slot[me.shuffles++ % 2];
  slot[index % kLanes] = value;
  if (++warp.arrived < warp.lanes) {
    me.wait = Wait::kWarp;
    me.fiber.yield();
  } else {
    warp.arrived = 0;
    for (int lane = 0; lane < warp.lanes; ++lane) {
      Thread& other = *me.block->threads[warp.first + lane];
      if (other.wait == Wait::kWarp) other.wait = Wait::kNothing;
    }
  }
  return slot[source_lane];
}

void* shared(const void* key, std::size_t bytes) {
  Block& block = *running->block;
  for (const SharedArray& array : block.arrays)
    if (array.key == key) return array.bytes.get();
  auto* fresh = static_cast<unsigned char*>(std::malloc(bytes));
  std::memset(fresh, kPoison, bytes);
  block.arrays.push_back({key, {fresh, &std::free}});
  return fresh;
}

void set_order(Order wanted, std::uint64_t seed) {
  order = wanted;
  generator.seed(seed);
}

void run(const dim3& grid, const dim3& size, const std::function<void()>& kernel) {
  static std::vector<Block> resident(kResident);
  running_kernel = &kernel;
  const std::vector<int> indices = block_order(static_cast<int>(grid.x * grid.y * grid.z));
  std::size_t next = 0;
  for (bool working = true; working;) {
    working = false;
    bool progress = false;
    for (int b : ordered(kResident)) {
      Block& block = resident[b];
      if (block.live == 0 && next < indices.size())
        start_block(block, grid, size, static_cast<unsigned>(indices[next++]));
      if (block.live == 0) continue;
      working = true;
      progress |= run_turn(block);
    }
    if (working && !progress && !feed_one(resident))
      fail("threads wait for each other (a barrier or shuffle that some of them never reach)");
  }
  for (Block& block : resident) block.arrays.clear();
}

}  // namespace elastic::shim

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  constexpr std::size_t kAlign = 256;  // as device memory is
  return posix_memalign(memory, kAlign, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void* memory) { return std::free(memory), cudaSuccess; }

namespace elastic {

float to_float(float16 v) {
  const int exponent = v.bits >> 10 & 0x1f, mantissa = v.bits & 0x3ff;
  float magnitude = std::ldexp(static_cast<float>(mantissa | 0x400), exponent - 25);
  if (exponent == 0) magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  if (exponent == 0x1f) magnitude = mantissa ? std::nanf("") : HUGE_VALF;
  return v.bits & 0x8000 ? -magnitude : magnitude;
}

float16 half_of(float v) {
  const std::uint16_t sign = std::signbit(v) ? 0x8000 : 0;
  const auto with_sign = [&](int bits) { return float16{static_cast<std::uint16_t>(sign | bits)}; };
  if (std::isnan(v)) return with_sign(0x7e00);
  const float magnitude = std::fabs(v);
  if (magnitude >= 65520.f) return with_sign(0x7c00);
  if (magnitude < 6.103515625e-05f)  // below the normal range: steps of 2^-24
    return with_sign(static_cast<int>(std::nearbyint(std::ldexp(magnitude, 24))));
  int exponent;
  const float fraction = std::frexp(magnitude, &exponent);                          // in [0.5, 1)
  const int mantissa = static_cast<int>(std::nearbyint(std::ldexp(fraction, 11)));  // 1024 .. 2048
  return with_sign(((exponent + 14) << 10) + (mantissa - 1024));
}

}  // namespace elastic
