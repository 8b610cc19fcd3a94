# Writes libraries.json beside installed libraries: what they are, in the schema elastic-plugins/1, read by
# elastic_runtime/format/plugin_libraries.py. Run while installing, since stripping changes a library's digest.
#
#   FOLDER        of the libraries
#   NAMES         their file names
#   ARCHITECTURES of each, in the order of NAMES: CMAKE_CUDA_ARCHITECTURES with commas
#   VERSION TENSORRT CUDA   of all of them
set(text "{\n \"schema\": \"elastic-plugins/1\",\n \"version\": \"${VERSION}\",\n \"abi\": \"${TENSORRT}\",\n")
string(APPEND text " \"cuda\": \"${CUDA}\",\n \"libraries\": [")
set(comma "")
foreach(name architectures IN ZIP_LISTS NAMES ARCHITECTURES)
  file(SIZE ${FOLDER}/${name} size)
  file(SHA256 ${FOLDER}/${name} digest)
  string(REPLACE "," "\", \"" architectures "${architectures}")
  string(APPEND text "${comma}\n  {\"file\": \"${name}\", \"size\": ${size}, \"sha256\": \"${digest}\", "
    "\"architectures\": [\"${architectures}\"]}")
  set(comma ",")
endforeach()
file(WRITE ${FOLDER}/libraries.json "${text}\n ]\n}\n")
