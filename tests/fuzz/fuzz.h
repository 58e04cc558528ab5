// What the fuzz targets share. Each defines LLVMFuzzerTestOneInput; what it is given is a file's or
// a call's bytes, and nothing that it does with them may end the process.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace sirocco {

inline std::string_view AsText(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// The parts before and behind the last NUL; all of it and nothing where there is none.
inline std::pair<std::string_view, std::string_view> SplitAtNul(std::string_view input) {
  const size_t nul = input.rfind('\0');
  if (nul == std::string_view::npos) return {input, {}};
  return {input.substr(0, nul), input.substr(nul + 1)};
}

// Stops the process, which the fuzzer takes for a finding.
inline void Require(bool what, const char* text) {
  if (what) return;
  std::fprintf(stderr, "not so: %s\n", text);
  std::abort();
}

// An error about a file is one line of bearable length.
inline void RequireOneLine(const absl::Status& status) {
  for (const char c : status.message()) Require(static_cast<unsigned char>(c) >= ' ', "one line");
  Require(status.message().size() < 4096, "a short line");
}

// A file in memory with these bytes, as long as the object lives.
class FuzzFile {
 public:
  FuzzFile(const uint8_t* data, size_t size) : fd_(memfd_create("input", MFD_CLOEXEC)) {
    Require(fd_ >= 0 && write(fd_, data, size) == static_cast<ssize_t>(size), "a file is made");
    path_ = "/proc/self/fd/" + std::to_string(fd_);
  }
  ~FuzzFile() { close(fd_); }
  FuzzFile(const FuzzFile&) = delete;
  FuzzFile& operator=(const FuzzFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  const int fd_;
  std::string path_;
};

}  // namespace sirocco
