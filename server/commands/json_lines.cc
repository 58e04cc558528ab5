#include "server/commands/json_lines.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

constexpr size_t kReadBytes = 64u << 10;

}  // namespace

std::string ErrorLine(const absl::Status& status) {
  const nlohmann::ordered_json line = {{"error", std::string(status.message())}};
  return line.dump(-1, ' ', /*ensure_ascii=*/true,
                   nlohmann::ordered_json::error_handler_t::replace);
}

OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
  if (this == &other) return *this;
  if (fd_ >= 0) close(fd_);
  fd_ = other.Release();
  return *this;
}

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) close(fd_);
}

int OwnedFd::Release() { return std::exchange(fd_, -1); }

absl::StatusOr<OwnedFd> OpenInput(const std::string& name) {
  OwnedFd fd(name.empty() ? dup(STDIN_FILENO) : open(name.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() >= 0) return fd;
  return absl::NotFoundError(
      absl::StrCat(name.empty() ? "standard input" : name, ": cannot be read: ", strerror(errno)));
}

LineReader::Got LineReader::Next(std::string* line, absl::Status* status) {
  *status = absl::OkStatus();
  for (;;) {
    const size_t end = buffer_.find('\n', at_);
    const bool whole = end != std::string::npos;
    const size_t part = (whole ? end : buffer_.size()) - at_;
    const size_t room = max_line_bytes_ - line_.size();
    too_long_ = too_long_ || part > room;
    line_.append(buffer_, at_, std::min(part, room));
    at_ += part + (whole ? 1 : 0);
    consumed_ += part + (whole ? 1 : 0);
    if (!whole && !end_) return Got::kNothing;
    *line = std::exchange(line_, {});
    if (std::exchange(too_long_, false)) {
      *status = absl::ResourceExhaustedError(
          absl::StrCat("the line is longer than ", max_line_bytes_, " bytes"));
      return Got::kLine;
    }
    if (line->find_first_not_of(" \t\r") != std::string::npos) return Got::kLine;
    if (!whole) break;
  }
  *status = error_;
  return Got::kEnd;
}

void LineReader::Fill() {
  buffer_.resize(kReadBytes);
  at_ = 0;
  ssize_t got = 0;
  do {
    got = read(fd_, buffer_.data(), buffer_.size());
  } while (got < 0 && errno == EINTR);
  if (got < 0) error_ = absl::UnavailableError(absl::StrCat("input: ", strerror(errno)));
  if (got <= 0) end_ = true;
  buffer_.resize(got > 0 ? got : 0);
}

bool LineReader::Wait(std::string* line, absl::Status* status) {
  for (;;) {
    const Got got = Next(line, status);
    if (got != Got::kNothing) return got == Got::kLine;
    Fill();
  }
}

}  // namespace sirocco
