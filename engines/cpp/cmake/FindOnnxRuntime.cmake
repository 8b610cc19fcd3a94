# onnxruntime's C interface below ELASTIC_ONNXRUNTIME_ROOT: target OnnxRuntime::onnxruntime.
find_path(OnnxRuntime_INCLUDE_DIR onnxruntime_c_api.h
  HINTS ${ELASTIC_ONNXRUNTIME_ROOT} PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session)
find_library(OnnxRuntime_LIBRARY NAMES onnxruntime HINTS ${ELASTIC_ONNXRUNTIME_ROOT} PATH_SUFFIXES lib lib64 capi)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxRuntime REQUIRED_VARS OnnxRuntime_LIBRARY OnnxRuntime_INCLUDE_DIR)
if(OnnxRuntime_FOUND AND NOT TARGET OnnxRuntime::onnxruntime)
  add_library(OnnxRuntime::onnxruntime UNKNOWN IMPORTED)
  set_target_properties(OnnxRuntime::onnxruntime PROPERTIES
    IMPORTED_LOCATION ${OnnxRuntime_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${OnnxRuntime_INCLUDE_DIR})
endif()
