#include "server/commands/wakeups.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "server/process/descriptors.h"

namespace sirocco {

Wakeups::Wakeups() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_ < 0) status_ = NoDescriptor("a signalfd");
  posts_ = OpenEventFd(status_);
}

Wakeups::~Wakeups() {
  if (signals_ >= 0) close(signals_);
  if (posts_ >= 0) close(posts_);
}

void Wakeups::Post(Event event) {
  pending_.fetch_or(event);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(posts_, &one, sizeof(one));
}

uint32_t Wakeups::Wait() {
  for (;;) {
    pollfd fds[] = {{signals_, POLLIN, 0}, {posts_, POLLIN, 0}};
    poll(fds, 2, -1);
    signalfd_siginfo info;
    while (read(signals_, &info, sizeof(info)) == sizeof(info)) pending_.fetch_or(kSignal);
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = read(posts_, &count, sizeof(count));
    if (const uint32_t events = pending_.exchange(0); events != 0) return events;
  }
}

}  // namespace sirocco
