// A file's bytes: mapped read-only for headers and texts, and read where there are many.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/model/tensor_source.h"

namespace sirocco {

// Immutable; any thread. The bytes live as long as the object. Of a file that is cut short while it
// is open `bytes` past its new end raise SIGBUS, as with every mapping; Read returns a status.
class MappedFile final : public ByteReader {
 public:
  // NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT for what is no regular file. Links are followed.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile() override;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }
  // Without the mapping: no page is mapped for it, which takes longer than copying what it holds.
  // INVALID_ARGUMENT: the file ends before the last byte; else as FileStatus.
  absl::Status Read(uint64_t offset, std::span<std::byte> out) const override;
  // Pages that were read count no longer as this process's memory; they come back when they are
  // read again.
  void ForgetPages() const;

 private:
  MappedFile(std::string path, int fd, std::span<const std::byte> bytes)
      : path_(std::move(path)), fd_(fd), bytes_(bytes) {}

  std::string path_;
  int fd_;
  std::span<const std::byte> bytes_;
};

// Whether a folder has an entry of this name, whatever it is: one that leads nowhere, or may not be
// looked at, is an error of the one who opens it, not a file that is not there.
bool IsPresent(const std::string& path);

// The status of a failed system call on `path`. RESOURCE_EXHAUSTED where the machine is at its
// limits; else it is the path's fault.
absl::Status FileStatus(int error_number, const std::string& path);

}  // namespace sirocco
