// What the host backend calls of onnxruntime's C interface, and nothing more: its wheel brings the library without
// headers. The interface is a table of functions that only ever grows at its end, so the place of a function in it
// says which it is; test_onnx_sdk.py compares the places with the true header where there is one. A release is built
// against that, not against this.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION 24  // whose table has all of these, as those before it have

#ifdef _WIN32
#define ORT_API_CALL __stdcall
#define ORTCHAR_T wchar_t
#else
#define ORT_API_CALL
#define ORTCHAR_T char
#endif

struct OrtEnv;
struct OrtStatus;
struct OrtMemoryInfo;
struct OrtSession;
struct OrtValue;
struct OrtTypeInfo;
struct OrtTensorTypeAndShapeInfo;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtAllocator;
struct OrtCUDAProviderOptionsV2;

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_ERROR = 3 };
enum OrtAllocatorType { OrtDeviceAllocator = 0 };
enum OrtMemType { OrtMemTypeDefault = 0 };
enum ONNXTensorElementDataType {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED = 0,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 = 3,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 = 10,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 = 16
};

struct OrtApi {
  void* slots_0[2];
  const char* (ORT_API_CALL* GetErrorMessage)(const OrtStatus*);
  OrtStatus* (ORT_API_CALL* CreateEnv)(OrtLoggingLevel, const char*, OrtEnv**);
  void* slots_4[3];
  OrtStatus* (ORT_API_CALL* CreateSession)(const OrtEnv*, const ORTCHAR_T*, const OrtSessionOptions*, OrtSession**);
  void* slots_8[1];
  OrtStatus* (ORT_API_CALL* Run)(OrtSession*, const OrtRunOptions*, const char* const*, const OrtValue* const*, size_t,
                                 const char* const*, size_t, OrtValue**);
  OrtStatus* (ORT_API_CALL* CreateSessionOptions)(OrtSessionOptions**);
  void* slots_11[13];
  OrtStatus* (ORT_API_CALL* SetIntraOpNumThreads)(OrtSessionOptions*, int);
  void* slots_25[5];
  OrtStatus* (ORT_API_CALL* SessionGetInputCount)(const OrtSession*, size_t*);
  OrtStatus* (ORT_API_CALL* SessionGetOutputCount)(const OrtSession*, size_t*);
  void* slots_32[1];
  OrtStatus* (ORT_API_CALL* SessionGetInputTypeInfo)(const OrtSession*, size_t, OrtTypeInfo**);
  OrtStatus* (ORT_API_CALL* SessionGetOutputTypeInfo)(const OrtSession*, size_t, OrtTypeInfo**);
  void* slots_35[1];
  OrtStatus* (ORT_API_CALL* SessionGetInputName)(const OrtSession*, size_t, OrtAllocator*, char**);
  OrtStatus* (ORT_API_CALL* SessionGetOutputName)(const OrtSession*, size_t, OrtAllocator*, char**);
  void* slots_38[11];
  OrtStatus* (ORT_API_CALL* CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t,
                                                            ONNXTensorElementDataType, OrtValue**);
  void* slots_50[5];
  OrtStatus* (ORT_API_CALL* CastTypeInfoToTensorInfo)(const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo**);
  void* slots_56[4];
  OrtStatus* (ORT_API_CALL* GetTensorElementType)(const OrtTensorTypeAndShapeInfo*, ONNXTensorElementDataType*);
  OrtStatus* (ORT_API_CALL* GetDimensionsCount)(const OrtTensorTypeAndShapeInfo*, size_t*);
  OrtStatus* (ORT_API_CALL* GetDimensions)(const OrtTensorTypeAndShapeInfo*, int64_t*, size_t);
  OrtStatus* (ORT_API_CALL* GetSymbolicDimensions)(const OrtTensorTypeAndShapeInfo*, const char**, size_t);
  void* slots_64[4];
  OrtStatus* (ORT_API_CALL* CreateMemoryInfo)(const char*, OrtAllocatorType, int, OrtMemType, OrtMemoryInfo**);
  OrtStatus* (ORT_API_CALL* CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo**);
  void* slots_70[6];
  OrtStatus* (ORT_API_CALL* AllocatorFree)(OrtAllocator*, void*);
  void* slots_77[1];
  OrtStatus* (ORT_API_CALL* GetAllocatorWithDefaultOptions)(OrtAllocator**);
  void* slots_79[13];
  void (ORT_API_CALL* ReleaseEnv)(OrtEnv*);
  void (ORT_API_CALL* ReleaseStatus)(OrtStatus*);
  void (ORT_API_CALL* ReleaseMemoryInfo)(OrtMemoryInfo*);
  void (ORT_API_CALL* ReleaseSession)(OrtSession*);
  void (ORT_API_CALL* ReleaseValue)(OrtValue*);
  void* slots_97[1];
  void (ORT_API_CALL* ReleaseTypeInfo)(OrtTypeInfo*);
  void* slots_99[1];
  void (ORT_API_CALL* ReleaseSessionOptions)(OrtSessionOptions*);
  void* slots_101[24];
  OrtStatus* (ORT_API_CALL* GetAvailableProviders)(char***, int*);
  OrtStatus* (ORT_API_CALL* ReleaseAvailableProviders)(char**, int);
  void* slots_127[77];
  OrtStatus* (ORT_API_CALL* SessionOptionsAppendExecutionProvider_CUDA_V2)(OrtSessionOptions*,
                                                                           const OrtCUDAProviderOptionsV2*);
  OrtStatus* (ORT_API_CALL* CreateCUDAProviderOptions)(OrtCUDAProviderOptionsV2**);
  OrtStatus* (ORT_API_CALL* UpdateCUDAProviderOptions)(OrtCUDAProviderOptionsV2*, const char* const*,
                                                       const char* const*, size_t);
  void* slots_207[1];
  void (ORT_API_CALL* ReleaseCUDAProviderOptions)(OrtCUDAProviderOptionsV2*);
};

struct OrtApiBase {
  const OrtApi* (ORT_API_CALL* GetApi)(uint32_t);
  const char* (ORT_API_CALL* GetVersionString)(void);
};

extern "C" const OrtApiBase* ORT_API_CALL OrtGetApiBase(void);
