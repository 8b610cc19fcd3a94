#include "launch.cuh"

template elastic::mamba2::Outcome elastic::mamba2::launch_mixer<float>(const Args&, ElasticMamba2Kernel, cudaStream_t);
