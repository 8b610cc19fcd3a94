// For test_attention_select.py, a line for each line of standard input:
//   probe              kernel and cut of a call on a card, of "B T H G D S kernel multiprocessors"
//   probe capability   why the card is refused, of "dtype D major"
#include <iostream>

#include "cached_attention/select.h"

namespace {

using namespace elastic::attention;

void show_capability() {
  Args args = {};
  for (int major; std::cin >> args.dtype >> args.shape.head_dim >> major;)
    std::cout << check_capability(major, args) << "\n";
}

}  // namespace

int main(int count, char**) {
  if (count > 1) return show_capability(), 0;
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
