"""`python -m elastic_plugins`: a line for each library."""

from elastic_plugins import libraries

for library in libraries():
    built = f"TensorRT headers {library.abi}, CUDA {library.cuda}"
    print(f"{library.path}  {library.size} bytes  {','.join(library.architectures)}  {built}  sha256 {library.sha256}")
