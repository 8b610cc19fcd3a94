# NVIDIA's public TensorRT headers, which hold the plugin interface of TensorRT-RTX too: fetched, where that is asked
# for, at one commit, whose name git checks against what it received. They are never part of this repository.
set(ELASTIC_TENSORRT_COMMIT 905361629f22836090d75ea77cba732a25107148)  # release/11.1

# Set `result` to the folder of the headers. Repository: ELASTIC_TENSORRT_REPOSITORY, a mirror's address or path serves.
function(elastic_fetch_tensorrt_headers result)
  find_package(Git REQUIRED)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/tensorrt-${ELASTIC_TENSORRT_COMMIT})
  if(NOT EXISTS ${folder}/include/NvInferRuntime.h)
    message(STATUS "TensorRT headers: fetching ${ELASTIC_TENSORRT_COMMIT} of ${ELASTIC_TENSORRT_REPOSITORY}")
    foreach(words
        "init -q ${folder}"
        "-C ${folder} fetch -q --depth 1 --filter=blob:none ${ELASTIC_TENSORRT_REPOSITORY} ${ELASTIC_TENSORRT_COMMIT}"
        "-C ${folder} config remote.origin.url ${ELASTIC_TENSORRT_REPOSITORY}"
        "-C ${folder} checkout -q ${ELASTIC_TENSORRT_COMMIT} -- include")
      separate_arguments(words UNIX_COMMAND "${words}")
      execute_process(COMMAND ${GIT_EXECUTABLE} ${words} RESULT_VARIABLE status ERROR_VARIABLE said)
      if(NOT status EQUAL 0)
        message(FATAL_ERROR "TensorRT headers: expected git to fetch ${ELASTIC_TENSORRT_COMMIT} of "
          "${ELASTIC_TENSORRT_REPOSITORY}, found: ${said}\nName a folder instead: -DTENSORRT_RTX_ROOT=DIR")
      endif()
    endforeach()
  endif()
  set(${result} ${folder}/include PARENT_SCOPE)
endfunction()
