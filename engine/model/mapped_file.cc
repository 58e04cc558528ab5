#include "engine/model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"

namespace sirocco {

absl::Status FileStatus(int error_number, const std::string& path) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(absl::StrCat(path, ": no such file"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(absl::StrCat(path, ": permission denied"));
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(absl::StrCat(path, ": ", std::strerror(error_number)));
    default:  // a loop of links, a name too long, a disk that fails
      return absl::FailedPreconditionError(absl::StrCat(path, ": ", std::strerror(error_number)));
  }
}

bool IsPresent(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  // Without O_NONBLOCK, opening a FIFO would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return FileStatus(errno, path);
  struct stat info;
  if (fstat(fd, &info) != 0) {
    const int error = errno;
    close(fd);
    return FileStatus(error, path);
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    return InvalidFile(
        path, S_ISDIR(info.st_mode) ? "is a directory, not a file" : "is not a regular file");
  }
  const size_t size = static_cast<size_t>(info.st_size);
  std::span<const std::byte> bytes;
  if (size > 0) {  // mmap refuses an empty range
    void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      const int error = errno;
      close(fd);
      return FileStatus(error, path);
    }
    bytes = {static_cast<const std::byte*>(data), size};
  }
  return std::unique_ptr<MappedFile>(new MappedFile(path, fd, bytes));
}

absl::Status MappedFile::Read(uint64_t offset, std::span<std::byte> out) const {
  for (size_t done = 0; done < out.size();) {
    const uint64_t at = offset + done;
    const ssize_t count = pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(at));
    if (count > 0) {
      done += static_cast<size_t>(count);
    } else if (count == 0) {
      return InvalidFile(path_, absl::StrCat("has been cut short: of ", out.size(),
                                             " bytes from byte ", offset, " on it holds ", done));
    } else if (errno != EINTR) {
      const absl::Status status = FileStatus(errno, path_);
      return absl::Status(status.code(),
                          absl::StrCat(status.message(), ", reading ", out.size() - done,
                                       " bytes from byte ", at, " on"));
    }
  }
  return absl::OkStatus();
}

void MappedFile::ForgetPages() const {
  if (bytes_.empty()) return;
  // Advice: where it is not taken, nothing changes.
  madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  close(fd_);
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace sirocco
