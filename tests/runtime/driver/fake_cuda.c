// A stand-in for libcuda.so.1 and libnvidia-ml.so.1 in main memory, so that the Python that calls them is run.
// It checks what it is given the way the driver does: unknown addresses and handles are errors.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INVALID 1
static struct { char* at; size_t size; } blocks[64];
static int capturing, retained, streams, graphs_left, execs_left, refuses_graphs, broken_stream;
static _Thread_local int context_set;  // as in the driver: a thread of its own begins with none
static char stream_tag, graph_tag;
// What an engine's stand-in asks for while it is recorded (fake_on_launch), done by every launch of the graph.
static void (*recorded)(void);
static struct { int used; void (*work)(void); } execs[8];

static int known(uint64_t address, size_t size) {
  for (int i = 0; i < 64; ++i) {
    const uint64_t at = (uint64_t)blocks[i].at;
    if (blocks[i].at && at <= address && address + size <= at + blocks[i].size) return 1;
  }
  return 0;
}

// Copies from page-locked memory read it when they are waited for and no earlier, so that a buffer which is filled again
// too soon gives wrong bytes; those from other memory are done before the call returns, as the driver stages them.
static struct Copy { char *to; const char *from; size_t to_pitch, from_pitch, width, height; } copies[4096];
static struct { char* at; size_t size; } pinned[8];
static int copy_count, events;

static void run_copies(void) {
  for (int i = 0; i < copy_count; ++i) {
    const struct Copy c = copies[i];
    for (size_t row = 0; row < c.height; ++row) memcpy(c.to + row * c.to_pitch, c.from + row * c.from_pitch, c.width);
  }
  copy_count = 0;
}
static void copy_rows(char* to, size_t to_pitch, const char* from, size_t from_pitch, size_t width, size_t height) {
  if (copy_count == 4096) run_copies();
  const struct Copy c = {to, from, to_pitch, from_pitch, width, height};
  copies[copy_count++] = c;
  for (int i = 0; i < 8; ++i) if (pinned[i].at && pinned[i].at <= from && from < pinned[i].at + pinned[i].size) return;
  run_copies();
}
int cuMemAllocHost_v2(void** memory, size_t size) {
  for (int i = 0; i < 8; ++i) {
    if (pinned[i].at) continue;
    pinned[i].size = size;
    *memory = pinned[i].at = malloc(size);
    return context_set ? 0 : INVALID;
  }
  return 2;
}
int cuMemFreeHost(void* memory) {
  for (int i = 0; i < 8; ++i) if (pinned[i].at == memory) { free(memory); pinned[i].at = 0; return 0; }
  return INVALID;
}
int cuEventCreate(void** event, unsigned flags) { *event = malloc(1); ++events; return flags == 2 ? 0 : INVALID; }
int cuEventRecord(void* event, void* stream) { return event && stream == &stream_tag ? 0 : INVALID; }
int cuEventSynchronize(void* event) { run_copies(); return event ? 0 : INVALID; }
int cuEventDestroy_v2(void* event) { free(event); --events; return 0; }

int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuInit(unsigned flags) { return flags ? INVALID : 0; }
int cuDeviceGet(int* device, int index) { *device = 40 + index; return index ? 101 : 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) { *context = &retained; ++retained; return device == 40 ? 0 : INVALID; }
int cuDevicePrimaryCtxRelease_v2(int device) { --retained; if (broken_stream == 2) streams = 0; return device == 40 ? 0 : INVALID; }
int cuCtxSetCurrent(void* context) { if (broken_stream == 2) return 700; context_set = context == &retained; return context_set ? 0 : INVALID; }
int cuStreamCreate(void** stream, unsigned flags) { if (broken_stream == 3) return 2; *stream = &stream_tag; ++streams; return flags == 1 && context_set ? 0 : INVALID; }
int cuStreamDestroy_v2(void* stream) { --streams; return stream == &stream_tag ? 0 : INVALID; }
int cuStreamSynchronize(void* stream) { run_copies(); if (broken_stream) return 700; return stream == &stream_tag && context_set && !capturing ? 0 : INVALID; }
int cuMemAlloc_v2(uint64_t* address, size_t size) {
  if (!context_set) return 201;
  if (size > (1u << 30)) return 2;
  for (int i = 0; i < 64; ++i) {
    if (blocks[i].at) continue;
    blocks[i].at = aligned_alloc(256, (size + 255) / 256 * 256);
    blocks[i].size = size;
    memset(blocks[i].at, 0xAB, size);
    *address = (uint64_t)blocks[i].at;
    return 0;
  }
  return 2;
}
int cuMemFree_v2(uint64_t address) {
  for (int i = 0; i < 64; ++i) {
    if (blocks[i].at && (uint64_t)blocks[i].at == address) { free(blocks[i].at); blocks[i].at = 0; return 0; }
  }
  return INVALID;
}
int cuMemsetD8Async(uint64_t address, unsigned char value, size_t count, void* stream) {
  if (!known(address, count) || stream != &stream_tag) return INVALID;
  run_copies();
  memset((void*)address, value, count);
  return 0;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t count, void* stream) {
  if (!known(to, count) || stream != &stream_tag || !context_set) return INVALID;
  copy_rows((char*)to, count, from, count, count, 1);
  return 0;
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t count, void* stream) {
  run_copies();
  if (!known(from, count) || stream != &stream_tag) return INVALID;
  memcpy(to, (void*)from, count);
  return 0;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t count, void* stream) {
  run_copies();
  if (!known(to, count) || !known(from, count) || stream != &stream_tag || !context_set) return INVALID;
  memcpy((void*)to, (void*)from, count);
  return 0;
}
typedef struct {  // CUDA_MEMCPY2D of cuda.h
  size_t srcXInBytes, srcY; int srcMemoryType; const void* srcHost; uint64_t srcDevice; void* srcArray; size_t srcPitch;
  size_t dstXInBytes, dstY; int dstMemoryType; void* dstHost; uint64_t dstDevice; void* dstArray; size_t dstPitch;
  size_t WidthInBytes, Height;
} Copy2D;
int cuMemcpy2DAsync_v2(const Copy2D* c, void* stream) {
  if ((c->srcMemoryType != 1 && c->srcMemoryType != 2) || c->dstMemoryType != 2 || stream != &stream_tag || !c->WidthInBytes || !c->Height) return INVALID;
  if (c->srcPitch > 0x7fffffff || c->dstPitch > 0x7fffffff) return INVALID;  // CU_DEVICE_ATTRIBUTE_MAX_PITCH
  if (c->WidthInBytes > c->srcPitch || c->WidthInBytes > c->dstPitch || !context_set) return INVALID;
  if (c->srcXInBytes || c->srcY || c->dstXInBytes || c->dstY || c->srcArray || c->dstArray) return INVALID;
  if (!known(c->dstDevice, (c->Height - 1) * c->dstPitch + c->WidthInBytes)) return INVALID;
  if (c->srcMemoryType == 2 && !known(c->srcDevice, (c->Height - 1) * c->srcPitch + c->WidthInBytes)) return INVALID;
  copy_rows((char*)c->dstDevice, c->dstPitch, c->srcMemoryType == 2 ? (const char*)c->srcDevice : c->srcHost, c->srcPitch, c->WidthInBytes, c->Height);
  return 0;
}
int cuStreamBeginCapture_v2(void* stream, int mode) { capturing = 1; recorded = 0; return stream == &stream_tag && mode == 1 ? 0 : INVALID; }
int cuStreamEndCapture(void* stream, void** graph) { *graph = &graph_tag; graphs_left += 1; int was = capturing; capturing = 0; return was && stream == &stream_tag ? 0 : INVALID; }
int cuGraphInstantiateWithFlags(void** exec, void* graph, uint64_t flags) {
  if (refuses_graphs) return 801;
  for (int i = 0; i < 8; ++i) {
    if (execs[i].used) continue;
    execs[i].used = 1;
    execs[i].work = recorded;
    *exec = &execs[i];
    ++execs_left;
    return graph == &graph_tag && !flags ? 0 : INVALID;
  }
  return 2;
}
int cuGraphDestroy(void* graph) { graphs_left -= 1; return graph == &graph_tag ? 0 : INVALID; }
static int exec_of(void* exec) {
  for (int i = 0; i < 8; ++i) if (exec == &execs[i] && execs[i].used) return i;
  return -1;
}
int cuGraphLaunch(void* exec, void* stream) {
  const int i = exec_of(exec);
  if (i < 0 || stream != &stream_tag) return INVALID;
  run_copies();
  if (execs[i].work) execs[i].work();
  return 0;
}
int cuGraphExecDestroy(void* exec) {
  const int i = exec_of(exec);
  if (i < 0) return INVALID;
  execs[i].used = 0;
  --execs_left;
  return 0;
}
int fake_capturing(void) { return capturing; }
void fake_on_launch(void (*work)(void)) { recorded = work; }
int cuGetErrorName(int code, const char** name) {
  *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 101 ? "CUDA_ERROR_INVALID_DEVICE" : "CUDA_ERROR_INVALID_VALUE";
  return 0;
}

void fake_refuse_graphs(int refuse) { refuses_graphs = refuse; }
// 1: waiting fails, as after an error that CUDA keeps; 2: so does every call that needs the context, which takes the
// stream along when it is released; 3: none is made.
void fake_break_stream(int how) { broken_stream = how; }
int fake_left(void) {  // what was not given back
  int left = retained + streams + graphs_left + execs_left + events;
  for (int i = 0; i < 8; ++i) left += pinned[i].at != 0;
  for (int i = 0; i < 64; ++i) left += blocks[i].at != 0;
  return left;
}

// CUDA's card 0 is NVML's card 1: the driver counts the fastest first, NVML by bus.
static char slow_tag;
int cuDeviceGetPCIBusId(char* text, int size, int device) {
  if (device != 40 || size < 13) return INVALID;
  strcpy(text, "0000:65:00.0");
  return 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  *device = !strcmp(id, "0000:65:00.0") ? (void*)&stream_tag : (void*)&slow_tag;
  return strcmp(id, "0000:65:00.0") && strcmp(id, "0000:01:00.0") ? 6 : 0;
}

int fake_nvml_error = 0;  // with which NVML does not start
int nvmlInit_v2(void) { return fake_nvml_error; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  *device = index ? (void*)&stream_tag : (void*)&slow_tag;
  return index > 1 ? 6 : 0;
}
static int is_card(void* device) { return device == &stream_tag || device == &slow_tag; }
int nvmlDeviceGetName(void* device, char* name, unsigned size) {
  if (!is_card(device) || size < 10) return 2;
  strcpy(name, device == &stream_tag ? "Fake 5090" : "Fake 3050");
  return 0;
}
int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* memory) {
  if (!is_card(device)) return 2;
  memory[0] = 34ull << 30; memory[1] = 31ull << 30; memory[2] = 3ull << 30;
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {
  const char* told = getenv("FAKE_CAPABILITY");  // such as 9.0
  *major = told ? told[0] - '0' : 12;
  *minor = told ? told[2] - '0' : 0;
  return is_card(device) ? 0 : 2;
}
