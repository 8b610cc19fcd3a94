// What a person can do about a file that a reader of formats refuses. Private to the library.
#pragma once

#include <string>

#include "elastic_runtime/error.h"

namespace elastic {

/// `work()`; an InputError out of it has this advice, unless it has its own: who reads a format cannot know
/// what the file is for and where another one comes from.
template <typename Work>
auto advised(const std::string& todo, Work&& work) {
  try {
    return work();
  } catch (const InputError& error) {
    if (!error.todo.empty()) throw;
    throw InputError(error.subject, error.expected, error.found, todo);
  }
}

}  // namespace elastic
