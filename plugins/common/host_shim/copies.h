// The copies of one thread that pass no register: under way from where they begin until their group is waited for.
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

#include "races.h"

namespace elastic::shim {

struct Copy {
  void* to;
  const void* from;  // nullptr: zeros
  std::size_t bytes;
  void* where;  // in the kernel it begins
  bool landed = false;

  void land();
  // A card may read and write at any time while the copy is under way: this says that it does now.
  void touch() const;
};

class Copies {
 public:
  void begin(Copy copy, bool at_once);
  void close();
  // Until at most `groups` are under way.
  void wait(std::size_t groups);
  bool all_waited_for() const;
  void clear();

 private:
  std::vector<Copy> open_;  // since the last group was closed
  std::deque<std::vector<Copy>> groups_;
  // What does them: a thread beside, that knows what this one had done when each began.
  races::Flow flow_;
  char begun_ = 0, landed_ = 0;  // what orders the two
};

}  // namespace elastic::shim
