// What a program has of its console: arguments as UTF-8, an output whose failures are noticed, Ctrl-C.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace app {

/// The arguments behind the program's name, as UTF-8 on every system.
std::vector<std::string> arguments(int count, char** given);

/// Ends the program quietly with an exit code; no error.
class Ended : public std::exception {
 public:
  explicit Ended(int exit_code) : exit_code(exit_code) {}
  const char* what() const noexcept override { return "ended"; }

  const int exit_code;
};

/// Write to standard output, at once. Throws Ended where the reader has gone (141, as of a process that
/// SIGPIPE ends), elastic::BuildError where it cannot be written for another reason, such as a full disk.
void print(std::string_view text);

/// Set up standard output and the answer to Ctrl-C: the first is heard by `poll`, the second ends the
/// process.
void prepare_console();

/// Throws Ended (130) once Ctrl-C was pressed.
void poll();

}  // namespace app
