// Where `sirocco run` writes its answers: a line for each line of input, in their order. So the
// file itself says how far a run came that was interrupted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/commands/json_lines.h"

namespace sirocco {

class AnswersFile {
 public:
  // Standard output where `name` is empty. A file that holds something is left as it is, and
  // INVALID_ARGUMENT, unless `resume`: then whole lines are kept, a broken last one is cut off, and
  // what is written goes behind. A regular file is locked: FAILED_PRECONDITION where another run
  // writes it.
  static absl::StatusOr<AnswersFile> Open(const std::string& name, bool resume);

  // Lines that were there, and how many of them are errors'.
  uint64_t lines() const { return lines_; }
  uint64_t failed() const { return failed_; }

  // All of it, or UNAVAILABLE: nobody reads any more, or the disk is full.
  absl::Status Write(std::string_view text);

 private:
  AnswersFile(OwnedFd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
  // Counts the lines, and cuts off what is no whole one.
  absl::Status GoOn();
  absl::Status Failed(std::string_view what) const;

  OwnedFd fd_;
  std::string name_;  // for people
  uint64_t lines_ = 0;
  uint64_t failed_ = 0;
};

}  // namespace sirocco
