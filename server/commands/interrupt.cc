#include "server/commands/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "server/process/descriptors.h"

namespace sirocco {
namespace {

// A handler has nothing but these.
std::atomic<int> signalled{0};
std::atomic<int> signal_fd{-1};

void OnSignal(int number) {
  const int saved = errno;
  ::signal(SIGINT, SIG_DFL);
  ::signal(SIGTERM, SIG_DFL);
  signalled.store(number);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(signal_fd.load(), &one, sizeof(one));
  errno = saved;
}

}  // namespace

Interrupt::Interrupt() {
  signalled.store(0);
  signal_fd.store(OpenEventFd(status_));
  if (!status_.ok()) return;
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

Interrupt::~Interrupt() {
  ::signal(SIGINT, SIG_DFL);
  ::signal(SIGTERM, SIG_DFL);
  if (const int fd = signal_fd.exchange(-1); fd >= 0) close(fd);
}

int Interrupt::fd() const { return signal_fd.load(); }

int Interrupt::signal() const { return signalled.load(); }

}  // namespace sirocco
