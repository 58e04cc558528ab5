// SIGINT and SIGTERM for a command that ends by itself: the first asks it to, the second ends the
// process.
#pragma once

#include "absl/status/status.h"

namespace sirocco {

// One at a time in a process. While it lives the first signal makes fd() readable; after that, and
// after the object, a signal ends the process.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // RESOURCE_EXHAUSTED: there was no descriptor for it, and a signal ends the process.
  const absl::Status& status() const { return status_; }

  int fd() const;
  // The signal that came; 0: none.
  int signal() const;

 private:
  absl::Status status_;
};

}  // namespace sirocco
