#include "launch.cuh"

template elastic::attention::Outcome elastic::attention::launch_attention<elastic::float16>(const Args&,
                                                                                       ElasticAttentionKernel,
                                                                                       cudaStream_t);
