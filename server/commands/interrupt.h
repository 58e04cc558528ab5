// SIGINT and SIGTERM for a command that ends by itself: the first asks it to, the second ends the
// process.
#pragma once

namespace sirocco {

// One at a time in a process. While it lives the first signal makes fd() readable; after that, and
// after the object, a signal ends the process.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  int fd() const;
  // The signal that came; 0: none.
  int signal() const;
};

}  // namespace sirocco
