# The device backend. Compute capabilities do not matter here: it holds no kernels.
find_package(CUDAToolkit REQUIRED)
find_package(TensorRT REQUIRED)
target_sources(elastic_runtime PRIVATE src/tensorrt/tensorrt_backend.cpp src/tensorrt/tensorrt_engine.cpp src/tensorrt/tensorrt_preflight.cpp)
target_link_libraries(elastic_runtime PRIVATE TensorRT::runtime CUDA::cudart)
target_compile_definitions(elastic_runtime PRIVATE ELASTIC_TENSORRT_FLAVOUR="${TensorRT_FLAVOUR}")

# Runtime cache, built-in CUDA graphs, kernels made for a shape and the judgement of an engine's header are TensorRT for
# RTX's own; ask the headers, not the name.
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_INCLUDES ${TensorRT_INCLUDE_DIR} ${CUDAToolkit_INCLUDE_DIRS})
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
check_cxx_source_compiles("
  #include <NvInferRuntime.h>
  bool f(nvinfer1::IRuntimeConfig& c) {
    c.setDynamicShapesKernelSpecializationStrategy(nvinfer1::DynamicShapesKernelSpecializationStrategy::kEAGER);
    return c.setRuntimeCache(*c.createRuntimeCache()) && c.setCudaGraphStrategy(nvinfer1::CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE);
  }
  bool g(nvinfer1::IRuntime& r, nvinfer1::IExecutionContext& c, uint64_t* faults) {
    return r.getEngineValidity(nullptr, 0, faults) == nvinfer1::EngineValidity::kVALID && c.isStreamCapturable(nullptr);
  }" ELASTIC_HAS_RUNTIME_CACHE)
unset(CMAKE_TRY_COMPILE_TARGET_TYPE)
if(ELASTIC_HAS_RUNTIME_CACHE)
  target_compile_definitions(elastic_runtime PRIVATE ELASTIC_HAS_RUNTIME_CACHE)
endif()
