#include "launch.cuh"

template elastic::mamba2::Outcome elastic::mamba2::launch_mixer<elastic::float16>(const Args&, ElasticMamba2Kernel,
                                                                                  cudaStream_t);
