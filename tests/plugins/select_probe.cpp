// Which variants run for a call, a decode block's passes on a card, the kernel that `auto` is and the channels of a block
// of chunk_prefill, for test_select.py: a line for each line of standard input,
// "B T H P G N K multiprocessors activation capability".
#include <iostream>

#include "mamba2_mixer/select.h"

int main() {
  using namespace elastic::mamba2;
  Shape s;
  int multiprocessors, activation, capability;
  while (std::cin >> s.batch >> s.tokens >> s.heads >> s.head_dim >> s.groups >> s.state_size >> s.conv_width >>
         multiprocessors >> activation >> capability) {
    ElasticMamba2Kernel kernel;
    choose_kernel({s, activation, capability}, ELASTIC_MAMBA2_AUTO, &kernel);
    std::cout << decodes(s) << wide_state(s) << vector_scan(s) << vector_conv(s) << vector_norm(s) << " "
              << decode_passes(s, multiprocessors) << " " << kernel << " " << chunk_width(s.head_dim) << "\n";
  }
  return 0;
}
