#include "server/process/descriptors.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sirocco {

int OpenEventFd(absl::Status& status) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) status = NoDescriptor("an eventfd");
  return fd;
}

absl::Status NoDescriptor(const char* what) {
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot have ", what, ": ", std::strerror(errno), " (ulimit -n)"));
}

absl::Status NeedDescriptors(int count) {
  absl::Status status;
  std::vector<int> fds;
  for (int i = 0; i < count && status.ok(); ++i) {
    const int fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0) {
      status = NoDescriptor(absl::StrCat(count, " more files").c_str());
    } else {
      fds.push_back(fd);
    }
  }
  for (const int fd : fds) close(fd);
  return status;
}

}  // namespace sirocco
