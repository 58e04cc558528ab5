// A file's bytes, mapped read-only.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sirocco {

// Immutable; any thread. The bytes live as long as the object. A file must not be cut short while
// it is mapped: reading past its new end raises SIGBUS, as with every mapping.
class MappedFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT for what is no regular file. Links are followed.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }
  // Pages that were read count no longer as this process's memory; they come back when they are
  // read again.
  void ForgetPages() const;

 private:
  MappedFile(std::string path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}

  std::string path_;
  std::span<const std::byte> bytes_;
};

// Whether a folder has an entry of this name, whatever it is: one that leads nowhere, or may not be
// looked at, is an error of the one who opens it, not a file that is not there.
bool IsPresent(const std::string& path);

// The status of a failed system call on `path`. RESOURCE_EXHAUSTED where the machine is at its
// limits; else it is the path's fault.
absl::Status FileStatus(int error_number, const std::string& path);

}  // namespace sirocco
