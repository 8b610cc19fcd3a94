#include "copies.h"

#include <cstring>
#include <utility>

namespace elastic::shim {

void Copy::land() {
  from ? std::memcpy(to, from, bytes) : std::memset(to, 0, bytes);
  landed = true;
}

void Copy::touch() const {
  if (from) races::reads(from, bytes, where);
  races::writes(to, bytes, where);
}

void Copies::begin(Copy copy, bool at_once) {
  races::release(&begun_);
  flow_.enter();
  races::acquire(&begun_);
  copy.touch();
  flow_.leave();
  const races::Quiet quiet;
  if (at_once) copy.land();
  open_.push_back(copy);
}

void Copies::close() {
  const races::Quiet quiet;
  groups_.push_back(std::exchange(open_, {}));
}

void Copies::wait(std::size_t groups) {
  while (groups_.size() > groups) {
    flow_.enter();
    for (const Copy& copy : groups_.front()) copy.touch();
    races::release(&landed_);
    flow_.leave();
    races::acquire(&landed_);
    const races::Quiet quiet;
    for (Copy& copy : groups_.front())
      if (!copy.landed) copy.land();
    groups_.pop_front();
  }
}

bool Copies::all_waited_for() const {
  bool waited_for = open_.empty();
  for (const auto& group : groups_) waited_for &= group.empty();
  return waited_for;
}

void Copies::clear() {
  open_.clear();
  groups_.clear();
}

}  // namespace elastic::shim
