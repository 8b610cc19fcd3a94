#include "cuda_shim.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "copies.h"
#include "fiber.h"
#include "races.h"

#if defined(ELASTIC_WATCH_RACES)
extern "C" const char* __tsan_default_options() { return "halt_on_error=1"; }
#endif

namespace elastic::shim {

Self* self = nullptr;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "host shim: %s\n", what);
  std::abort();
}

namespace {

// Blocks under way at a time: what one of them does too early, another may see. Races need not be seen to be found, and
// the thread sanitizer's time goes with the number of threads.
constexpr int kResident = races::kWatched ? 2 : 6;
constexpr unsigned char kPoison = 0xff;  // all ones is a NaN in every floating type

enum class Wait { kNothing, kWarp, kBlock, kDone };

struct Block;

struct Thread {
  Self place;
  Fiber fiber;
  Block* block = nullptr;
  Wait wait = Wait::kDone;
  unsigned exchanges = 0;  // exchanges this lane has entered
  Copies copies;
  void* counter = nullptr;  // the last atomic that it has done
};

// Two buffers of exchanged values: a lane that is one exchange ahead must not overwrite what a slower one reads.
struct Warp {
  Exchanged buffer[2];
  const char* instruction = nullptr;  // in which the lanes that have arrived wait
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
  int barrier = 0;   // which one those wait at
  unsigned met = 0;  // barriers that are complete
  char meeting[2];   // what orders one and the next: a thread may come to the next before another has left this one
  int starved = -1;  // the warp that runs only when nothing else can
};

Thread* running = nullptr;
char launched, ended;  // what orders a launch
const std::function<void()>* running_kernel = nullptr;
std::size_t dynamic_bytes = 0;
Order order = Order::kForward;
std::mt19937_64 generator;

std::vector<int> ordered(int count) {
  std::vector<int> indices(count);
  std::iota(indices.begin(), indices.end(), 0);
  if (order == Order::kReversed) std::reverse(indices.begin(), indices.end());
  if (order == Order::kRandom) std::shuffle(indices.begin(), indices.end(), generator);
  return indices;
}

// The thread of `load_any_time`.
races::Flow& any_time() {
  static races::Flow flow;
  return flow;
}

int draw(std::size_t count) { return static_cast<int>(generator() % count); }

// Blocks that work together are neighbours: a random order keeps them so in one launch of two.
std::vector<int> block_order(int count) {
  std::vector<int> indices = ordered(count);
  if (order == Order::kRandom && draw(2) == 0) std::sort(indices.begin(), indices.end());
  return indices;
}

// A barrier with a number of threads wants them all: those that have ended do not come.
void release_barrier_if_complete(Block& block) {
  if (block.at_barrier == 0 || block.at_barrier < (block.barrier == 0 ? block.live : block.count)) return;
  block.at_barrier = 0;
  ++block.met;
  for (int i = 0; i < block.count; ++i)
    if (block.threads[i]->wait == Wait::kBlock) block.threads[i]->wait = Wait::kNothing;
}

void run_thread() {
  Thread& me = *running;
  me.fiber.arrived();
  races::acquire(&launched);
  (*running_kernel)();
  races::release(&ended);
  // What is still under way at a block's end may land in shared memory that another block has by then.
  if (!me.copies.all_waited_for()) fail("a thread ends with copies under way");
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

void name([[maybe_unused]] Thread& thread, [[maybe_unused]] unsigned block) {
#if defined(ELASTIC_WATCH_RACES)
  char text[64];
  std::snprintf(text, sizeof text, "block %u, thread %u", block, thread.place.thread.x);
  thread.fiber.name(text);
#endif
}

void start_threads(Block& block, const dim3& grid, const dim3& size, unsigned index) {
  while (static_cast<int>(block.threads.size()) < block.count) block.threads.push_back(std::make_unique<Thread>());
  const dim3 place(index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y);
  for (int i = 0; i < block.count; ++i) {
    Thread& thread = *block.threads[i];
    const unsigned flat = static_cast<unsigned>(i);
    thread.place = {dim3(flat % size.x, flat / size.x % size.y, flat / size.x / size.y), place, size, grid};
    thread.block = &block;
    thread.wait = Wait::kNothing;
    thread.exchanges = 0;
    thread.copies.clear();
    thread.counter = nullptr;
    name(thread, index);
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

}  // namespace

void barrier(int id) {
  Thread& me = *running;
  if (me.block->at_barrier > 0 && me.block->barrier != id) fail("threads of one block wait at different barriers");
  me.block->barrier = id;
  me.wait = Wait::kBlock;
  char* const meeting = &me.block->meeting[me.block->met % 2];
  races::release(meeting);
  ++me.block->at_barrier;
  release_barrier_if_complete(*me.block);
  // Even the last one to arrive goes to the back of the queue.
  me.fiber.yield();
  races::acquire(meeting);
}

const Exchanged& exchange(const char* name, const void* mine, std::size_t bytes, Finish finish) {
  const races::Quiet quiet;
  Thread& me = *running;
  const int index = static_cast<int>(me.place.thread.x);  // kernels are one-dimensional
  Warp& warp = me.block->warps[index / kLanes];
  if (finish && warp.lanes < kLanes) fail("an instruction of 32 lanes in a warp that has fewer");
  Exchanged& buffer = warp.buffer[me.exchanges++ % 2];
  std::memcpy(buffer.lane[index % kLanes], mine, bytes);
  if (warp.arrived > 0 && warp.instruction != name && std::strcmp(warp.instruction, name) != 0)
    fail("lanes of one warp wait for each other in different instructions");
  warp.instruction = name;
  if (++warp.arrived < warp.lanes) {
    me.wait = Wait::kWarp;
    me.fiber.yield();
    return buffer;
  }
  warp.arrived = 0;
  if (finish) finish(buffer);
  for (int lane = 0; lane < warp.lanes; ++lane) {
    Thread& other = *me.block->threads[warp.first + lane];
    if (other.wait == Wait::kWarp) other.wait = Wait::kNothing;
  }
  return buffer;
}

template <typename T>
T shuffle(T value, int source_lane) {
  std::memcpy(&value, exchange("shfl", &value, sizeof value).lane[source_lane], sizeof value);
  return value;
}
template float shuffle(float, int);
template int shuffle(int, int);

void copy_later(void* shared, const void* global, int bytes) {
  const auto places = reinterpret_cast<std::uintptr_t>(shared) | reinterpret_cast<std::uintptr_t>(global);
  if (places % static_cast<unsigned>(bytes) != 0) fail("a copy that is not aligned to its width");
  const bool at_once = order == Order::kReversed || (order == Order::kRandom && draw(2) == 0);
  running->copies.begin({shared, global, static_cast<std::size_t>(bytes), __builtin_return_address(0)}, at_once);
}

void close_copies() { running->copies.close(); }

void wait_copies(int groups) { running->copies.wait(static_cast<std::size_t>(groups)); }

// All of a launch's are those of one thread that no barrier knows: whoever writes there is in a race with it.
void load_any_time([[maybe_unused]] const void* from, [[maybe_unused]] std::size_t bytes) {
#if defined(ELASTIC_WATCH_RACES)
  any_time().enter();
  races::reads(from, bytes, __builtin_return_address(0));
  any_time().leave();
#endif
}

void* shared(const void* key, std::size_t bytes) {
  const races::Quiet quiet;
  Block& block = *running->block;
  for (const SharedArray& array : block.arrays)
    if (array.key == key) return array.bytes.get();
  auto* fresh = static_cast<unsigned char*>(std::malloc(bytes));
  std::memset(fresh, kPoison, bytes);
  block.arrays.push_back({key, {fresh, &std::free}});
  return fresh;
}

void* dynamic_shared() {
  static const char key = 0;
  return shared(&key, dynamic_bytes);
}

void set_order(Order wanted, std::uint64_t seed) {
  order = wanted;
  generator.seed(seed);
}

void run(const dim3& grid, const dim3& size, std::size_t shared_bytes, const std::function<void()>& kernel) {
  races::release(&launched);
  any_time().enter(), races::acquire(&launched), any_time().leave();
  const races::Quiet quiet;
  static std::vector<Block> resident(kResident);
  running_kernel = &kernel;
  dynamic_bytes = shared_bytes;
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
  any_time().enter(), races::release(&ended), any_time().leave();
  races::acquire(&ended);
}

}  // namespace elastic::shim

namespace elastic {

unsigned atomic_inc_release(unsigned* address, unsigned limit) {
  shim::running->counter = address;
  shim::races::release(address);
  const unsigned old = *address;
  *address = old >= limit ? 0u : old + 1u;
  return old;
}

void fence_acquire() {
  if (shim::running->counter) shim::races::acquire(shim::running->counter);
}

}  // namespace elastic

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  constexpr std::size_t kAlign = 256;  // as device memory is
  return posix_memalign(memory, kAlign, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void* memory) { return std::free(memory), cudaSuccess; }
