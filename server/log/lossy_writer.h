// Writes lines to a file descriptor and never waits for its reader: what cannot be written at once
// is lost, and counted.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

namespace sirocco {

// Any thread.
class LossyWriter {
 public:
  explicit LossyWriter(int fd) : fd_(fd) {}

  // `line` without its end. Where lines were lost before it, what `about` makes of their number is
  // written first.
  void WriteLine(std::string_view line, const std::function<std::string(int64_t lost)>& about);

 private:
  // False: not all of it could be written.
  bool Write(std::string_view text);

  const int fd_;
  std::mutex mutex_;
  int64_t lost_ = 0;   // lines, since the last that was written
  bool torn_ = false;  // the last line that was begun is not ended
};

}  // namespace sirocco
