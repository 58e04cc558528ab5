#include "server/commands/answers_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

constexpr size_t kReadBytes = 1u << 20;

}  // namespace

absl::Status AnswersFile::Failed(std::string_view what) const {
  return absl::UnavailableError(
      absl::StrCat(name_, ": ", std::string(what), ": ", strerror(errno)));
}

absl::StatusOr<AnswersFile> AnswersFile::Open(const std::string& name, bool resume) {
  if (name.empty()) return AnswersFile(OwnedFd(dup(STDOUT_FILENO)), "standard output");
  AnswersFile file(OwnedFd(open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)), name);
  struct stat info = {};
  if (file.fd_.get() < 0 || fstat(file.fd_.get(), &info) != 0) {
    return absl::NotFoundError(absl::StrCat(name, ": cannot be written: ", strerror(errno)));
  }
  if (!S_ISREG(info.st_mode)) {
    if (!resume) return file;
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": is no regular file, which is what --resume goes on with"));
  }
  if (flock(file.fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(name, ": another run writes it"));
  }
  if (!resume && info.st_size > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": holds something; --resume goes on with it"));
  }
  if (const absl::Status status = file.GoOn(); !status.ok()) return status;
  return file;
}

absl::Status AnswersFile::GoOn() {
  std::vector<char> part(kReadBytes);
  std::string start;  // of the line: as much as tells an error's
  off_t at = 0, whole = 0;
  for (;;) {
    const ssize_t got = read(fd_.get(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Failed("cannot be read");
    if (got == 0) break;
    for (ssize_t i = 0; i < got; ++i) {
      ++at;
      if (part[i] != '\n') {
        if (start.size() < sizeof(kErrorStart) - 1) start.push_back(part[i]);
        continue;
      }
      ++lines_;
      if (start == kErrorStart) ++failed_;
      start.clear();
      whole = at;
    }
  }
  if (ftruncate(fd_.get(), whole) != 0) return Failed("cannot be cut after its last whole line");
  if (lseek(fd_.get(), whole, SEEK_SET) < 0) return Failed("cannot be written");
  return absl::OkStatus();
}

absl::Status AnswersFile::Write(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd_.get(), text.data(), text.size());
    if (written < 0 && errno == EAGAIN) {
      pollfd room = {fd_.get(), POLLOUT, 0};
      poll(&room, 1, -1);
      continue;
    }
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed("cannot be written");
    text.remove_prefix(written);
  }
  return absl::OkStatus();
}

}  // namespace sirocco
