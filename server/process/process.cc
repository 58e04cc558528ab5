#include "server/process/process.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <string_view>

#include "absl/synchronization/mutex.h"

namespace sirocco {
namespace {

constexpr int kFailed = 1;

// The lowest descriptor that is free is the one that `open` gives.
void FillStandardStreams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) == -1 && errno == EBADF) open("/dev/null", O_RDWR);
  }
}

// In a signal handler: nothing but what async-signal-safe functions do.
void OnUnreadablePage(int) {
  constexpr std::string_view kLine =
      "sirocco: a file of the model cannot be read: it was cut short, or its disk fails\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kLine.data(), kLine.size());
  _exit(kFailed);
}

}  // namespace

void PrepareProcess() {
  FillStandardStreams();
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGBUS, OnUnreadablePage);
  // Debian's Abseil, and so gRPC, would check the order of all locks: by a graph behind one lock
  // for all, which grows with the calls.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

bool OutputIsWhole() { return std::fflush(stdout) == 0 && std::ferror(stdout) == 0; }

}  // namespace sirocco
