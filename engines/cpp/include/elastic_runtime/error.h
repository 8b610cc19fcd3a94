// Errors a person reads: subject, what was expected, what was found, what to do. Same texts as
// elastic_runtime in Python.
#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace elastic {

/// Base of every error meant for the user. `exit_code` is that of a program which dies of it.
class Error : public std::exception {
 public:
  /// @param subject  the thing that is wrong (a file, a tensor, an option), named as the user knows it
  /// @param expected what would have been right
  /// @param found    what was there instead
  /// @param todo     the reader's next step, in the imperative; empty where nothing can be said
  Error(std::string subject, std::string expected, std::string found, std::string todo, int exit_code);

  const char* what() const noexcept override { return text_.c_str(); }
  int exit_code() const noexcept { return exit_code_; }

  const std::string subject, expected, found, todo;

 private:
  std::string text_;
  int exit_code_;
};

/// The request or an input file is at fault: exit 2.
class InputError : public Error {
 public:
  InputError(std::string subject, std::string expected, std::string found, std::string todo = {});
};

/// The machine or a device failed: exit 1.
class BuildError : public Error {
 public:
  BuildError(std::string subject, std::string expected, std::string found, std::string todo = {});
};

/// The engine or backend cannot run on this machine, or in this build; nothing is wrong with the bundle:
/// exit 1.
class UnavailableError : public BuildError {
 public:
  using BuildError::BuildError;
};

/// A file of a bundle is not the one that was written: exit 1.
class DamageError : public BuildError {
 public:
  using BuildError::BuildError;
};

/// Text for a terminal: whatever is no visible sign or plain space, line breaks aside, is escaped. Names out
/// of a hostile file must not steer it.
std::string printable(std::string_view text);

/// The same in single quotes and on one line, for the name of something.
std::string in_quotes(std::string_view text);

/// A short, ASCII-only form for an error message, of at most 60 characters.
std::string show(std::string_view text);

}  // namespace elastic
