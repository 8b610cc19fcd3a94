// Which variants run for a shape, and a decode block's passes on a card, for test_select.py: a line for each line of
// standard input, "B T H P G N K multiprocessors".
#include <iostream>

#include "mamba2_mixer/select.h"

int main() {
  using namespace elastic::mamba2;
  Shape s;
  int multiprocessors;
  while (std::cin >> s.batch >> s.tokens >> s.heads >> s.head_dim >> s.groups >> s.state_size >> s.conv_width >>
         multiprocessors)
    std::cout << decodes(s) << wide_state(s) << vector_scan(s) << vector_conv(s) << vector_norm(s) << " "
              << decode_passes(s, multiprocessors) << "\n";
  return 0;
}
