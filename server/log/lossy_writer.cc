#include "server/log/lossy_writer.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>

namespace sirocco {

// A pipe that poll calls writable takes this much without waiting (pipe(7)); files always do. The
// mutex keeps others of this process from taking the room in between.
constexpr size_t kAtOnce = PIPE_BUF;

bool LossyWriter::Write(std::string_view text) {
  while (!text.empty()) {
    pollfd fd = {fd_, POLLOUT, 0};
    if (poll(&fd, 1, 0) != 1 || (fd.revents & POLLOUT) == 0) return false;
    const ssize_t written = write(fd_, text.data(), std::min(text.size(), kAtOnce));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    torn_ = true;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

void LossyWriter::WriteLine(std::string_view line,
                            const std::function<std::string(int64_t lost)>& about) {
  const std::lock_guard lock(mutex_);
  std::string text;
  if (torn_) text += '\n';
  if (lost_ > 0) {
    text += about(lost_);
    text += '\n';
  }
  text += line;
  text += '\n';
  if (!Write(text)) {
    ++lost_;
    return;
  }
  lost_ = 0;
  torn_ = false;
}

}  // namespace sirocco
