#include "elastic_runtime/error.h"

#include <utility>

namespace elastic {
namespace {

std::string compose(const std::string& subject, const std::string& expected, const std::string& found,
                    std::string todo) {
  const std::string text = printable(subject + ": expected " + expected + ", found " + found) + ".";
  if (todo.empty()) return text;
  if (todo[0] >= 'a' && todo[0] <= 'z') todo[0] = static_cast<char>(todo[0] - 'a' + 'A');
  return text + " " + todo + ".";
}

}  // namespace

Error::Error(std::string subject_, std::string expected_, std::string found_, std::string todo_,
             int exit_code)
    : subject(std::move(subject_)),
      expected(std::move(expected_)),
      found(std::move(found_)),
      todo(std::move(todo_)),
      text_(compose(subject, expected, found, todo)),
      exit_code_(exit_code) {}

InputError::InputError(std::string subject_, std::string expected_, std::string found_, std::string todo_)
    : Error(std::move(subject_), std::move(expected_), std::move(found_), std::move(todo_), 2) {}

BuildError::BuildError(std::string subject_, std::string expected_, std::string found_, std::string todo_)
    : Error(std::move(subject_), std::move(expected_), std::move(found_), std::move(todo_), 1) {}

}  // namespace elastic
