#include "server/security/small_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

class File {
 public:
  explicit File(const std::string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

absl::Status SystemError(const std::string& where) {
  const std::string message = absl::StrCat(where, ": ", std::strerror(errno));
  return errno == EACCES || errno == EPERM ? absl::PermissionDeniedError(message)
                                           : absl::NotFoundError(message);
}

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(std::string_view key, const std::string& path) {
  const std::string where = absl::StrCat(std::string(key), ": ", path);
  const File file(path);
  if (file.fd() < 0) return SystemError(where);
  struct stat status;
  if (fstat(file.fd(), &status) != 0) return SystemError(where);
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": is no plain file"));
  }
  std::string text(kMaxBytes + 1, '\0');
  size_t bytes = 0;
  while (bytes < text.size()) {
    const ssize_t got = read(file.fd(), text.data() + bytes, text.size() - bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError(where);
    if (got == 0) break;
    bytes += static_cast<size_t>(got);
  }
  if (bytes == 0) return absl::InvalidArgumentError(absl::StrCat(where, ": is empty"));
  if (bytes > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": is larger than ", kMaxBytes, " bytes"));
  }
  text.resize(bytes);
  return text;
}

}  // namespace sirocco
