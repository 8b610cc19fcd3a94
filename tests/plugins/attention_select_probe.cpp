// Kernel and cut of a call on a card, for test_attention_select.py: a line for each line of standard input,
// "B T H G D S kernel multiprocessors".
#include <iostream>

#include "cached_attention/select.h"

int main() {
  using namespace elastic::attention;
  Shape s;
  int asked, multiprocessors;
  while (std::cin >> s.batch >> s.tokens >> s.heads >> s.key_value_heads >> s.head_dim >> s.context >> asked >>
         multiprocessors) {
    ElasticAttentionKernel kernel = ELASTIC_ATTENTION_AUTO;
    if (!choose_kernel(s, asked, &kernel).empty()) return 1;
    const Cut cut = choose_cut(s, kernel, multiprocessors);
    std::cout << kernel << " " << cut.tile_rows << " " << cut.tiles << " " << cut.splits << "\n";
  }
  return 0;
}
