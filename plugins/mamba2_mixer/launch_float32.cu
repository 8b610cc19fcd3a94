#include "launch.cuh"

template elastic::mamba2::Outcome elastic::mamba2::launch_mixer<float>(const Args&, const ElasticMamba2Plan&,
                                                                       cudaStream_t);
