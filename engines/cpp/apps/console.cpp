#include "console.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "elastic_runtime/error.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <fcntl.h>
#include <io.h>
#include <windows.h>
// After windows.h, whose types it uses.
#include <shellapi.h>
#endif

namespace app {
namespace {

constexpr int kInterrupted = 130;  // as a shell reports SIGINT

std::atomic<bool> interrupted{false};  // any thread may take the signal, and those that read weights ask
static_assert(std::atomic<bool>::is_always_lock_free);  // as a handler must have it

/// Whether the last write failed for want of a reader.
bool reader_is_gone(int error) {
#ifdef _WIN32
  return error == EPIPE || error == EINVAL;  // the latter is what its C library makes of a broken pipe
#else
  return error == EPIPE;
#endif
}

int gone_code() {
#ifdef SIGPIPE
  return 128 + SIGPIPE;
#else
  return 1;
#endif
}

}  // namespace

#ifdef _WIN32

std::vector<std::string> arguments(int, char**) {
  int count = 0;
  wchar_t** wide = CommandLineToArgvW(GetCommandLineW(), &count);  // main's own are in the ANSI code page
  std::vector<std::string> result;
  for (int i = 1; wide && i < count; ++i) {
    const int size = WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, nullptr, 0, nullptr, nullptr);
    std::string text(static_cast<std::size_t>(size > 0 ? size : 1), '\0');
    WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, text.data(), size, nullptr, nullptr);
    text.pop_back();  // the zero at its end
    result.push_back(std::move(text));
  }
  LocalFree(wide);
  return result;
}

#else

std::vector<std::string> arguments(int count, char** given) {
  return {given + (count > 0 ? 1 : 0), given + count};
}

#endif

void print(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
  const int error = errno;
  if (reader_is_gone(error)) throw Ended(gone_code());
  throw elastic::BuildError("standard output", "it to be written",
                            error != 0 ? std::strerror(error) : "an error");
}

void prepare_console() {
#ifdef _WIN32
  SetConsoleOutputCP(CP_UTF8);
  _setmode(_fileno(stdout), _O_BINARY);  // tokens as they are: no carriage returns of its own
#endif
  std::signal(SIGINT, [](int) {
    interrupted = true;
    std::signal(SIGINT, SIG_DFL);  // whatever cannot be polled ends with the second one
  });
#ifdef SIGPIPE
  std::signal(SIGPIPE, SIG_IGN);  // noticed where it is written
#endif
}

void poll() {
  if (interrupted) throw Ended(kInterrupted);
}

}  // namespace app
