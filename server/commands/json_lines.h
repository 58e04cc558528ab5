// JSON lines in, JSON lines out: how the offline commands work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sirocco {

// Of a line of input.
inline constexpr size_t kMaxLineBytes = 64u << 20;

// How each answer begins that is an error's.
inline constexpr char kErrorStart[] = "{\"error\":";
// {"error": MESSAGE} as a line's text.
std::string ErrorLine(const absl::Status& status);

// A file descriptor that is closed with its owner; -1: none.
class OwnedFd {
 public:
  explicit OwnedFd(int fd = -1) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.Release()) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept;
  ~OwnedFd();
  int get() const { return fd_; }
  int Release();

 private:
  int fd_;
};

// A command's input for reading: the file of this name, or standard input where it is empty.
// NOT_FOUND: it cannot be opened.
absl::StatusOr<OwnedFd> OpenInput(const std::string& name);

// The lines of a file descriptor, for a thread that waits for other things too.
class LineReader {
 public:
  // Lines are bounded: what is longer is read to its end and dropped.
  explicit LineReader(int fd, size_t max_line_bytes = kMaxLineBytes)
      : fd_(fd), max_line_bytes_(max_line_bytes) {}

  enum class Got { kLine, kNothing, kEnd };
  // The next line that is not blank; *status is RESOURCE_EXHAUSTED for one that was too long, and
  // else what became of reading: after an error the end has come. kNothing: Fill first.
  Got Next(std::string* line, absl::Status* status);
  // Reads once; does not wait where poll() says that there is something, or the end.
  void Fill();
  // Next, with as many a Fill as it takes; false: the end.
  bool Wait(std::string* line, absl::Status* status);

  // Bytes that Next has gone through.
  uint64_t consumed() const { return consumed_; }

 private:
  const int fd_;
  const size_t max_line_bytes_;
  std::string buffer_;  // what was read last
  size_t at_ = 0;       // of it, taken
  std::string line_;    // the beginning of the next line
  bool too_long_ = false;
  bool end_ = false;
  absl::Status error_;
  uint64_t consumed_ = 0;
};

}  // namespace sirocco
