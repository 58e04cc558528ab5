// libfaults.so: makes what a program asks of the system fail on a schedule (schedule.h). It is put
// before libc by LD_PRELOAD, so that the program is, byte for byte, the one that ships:
//
//   LD_PRELOAD=libfaults.so SIROCCO_FAULTS=file:read@3 sirocco serve ...
//
//   file:open, read, map   of a regular file, to read it: EIO. file:page: its map succeeds, and no
//                          page of it can be read, as where the disk fails or the file was cut
//                          short
//   alloc:map              memory from the system (mmap, mprotect): ENOMEM
//   alloc:new              `operator new` of kLarge bytes or more: std::bad_alloc
//   socket:write           to a socket: ECONNRESET
//   socket:connect         a connection to elsewhere: ECONNREFUSED
//
// What libc and the C++ library ask of the system inside of themselves is not asked here: of an
// ifstream's opening it is fopen's caller that is told of a failure, of a stack for a thread
// nobody.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "tests/faults/schedule.h"

namespace {

using sirocco::faults::Fault;

// What is no message and no token, but an answer, a prompt or a table.
constexpr size_t kLarge = 64 << 10;

bool IsKind(int fd, mode_t kind) {
  struct stat info = {};
  return syscall(SYS_fstat, fd, &info) == 0 && (info.st_mode & S_IFMT) == kind;
}

bool FailsWith(int error, const char* kind, const char* call) {
  if (!Fault(kind, call)) return false;
  errno = error;
  return true;
}

bool OpenFails(int flags) {
  return (flags & O_ACCMODE) == O_RDONLY && (flags & O_DIRECTORY) == 0 &&
         FailsWith(EIO, "file", "open");
}
bool ReadFails(int fd) { return IsKind(fd, S_IFREG) && FailsWith(EIO, "file", "read"); }
bool WriteFails(int fd) { return IsKind(fd, S_IFSOCK) && FailsWith(ECONNRESET, "socket", "write"); }

int Open(const char* path, int flags, mode_t mode) {
  if (OpenFails(flags)) return -1;
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

void* Pages(size_t bytes, int protection, int flags, int fd, off_t offset, void* address) {
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, bytes, protection, flags, fd, offset));
}

void* Map(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  if ((flags & MAP_ANONYMOUS) != 0) {
    if (FailsWith(ENOMEM, "alloc", "map")) return MAP_FAILED;
  } else if (IsKind(fd, S_IFREG)) {
    if (FailsWith(EIO, "file", "map")) return MAP_FAILED;
    if (Fault("file", "page")) {
      const int empty = static_cast<int>(syscall(SYS_memfd_create, "fault", 0));
      void* const pages = Pages(bytes, protection, flags, empty, 0, address);
      syscall(SYS_close, empty);
      return pages;
    }
  }
  return Pages(bytes, protection, flags, fd, offset, address);
}

using Fopen = FILE*(const char*, const char*);

FILE* OpenStream(const char* name, const char* path, const char* mode) {
  if (mode[0] == 'r' && std::strchr(mode, '+') == nullptr && FailsWith(EIO, "file", "open")) {
    return nullptr;
  }
  return reinterpret_cast<Fopen*>(dlsym(RTLD_NEXT, name))(path, mode);
}

void* New(size_t bytes) {
  if (bytes >= kLarge && Fault("alloc", "new")) throw std::bad_alloc();
  void* const memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return Open(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return Open(path, flags, mode);
}
FILE* fopen(const char* path, const char* mode) { return OpenStream("fopen", path, mode); }
FILE* fopen64(const char* path, const char* mode) { return OpenStream("fopen64", path, mode); }

ssize_t read(int fd, void* to, size_t bytes) {
  return ReadFails(fd) ? -1 : syscall(SYS_read, fd, to, bytes);
}
ssize_t pread(int fd, void* to, size_t bytes, off_t offset) {
  return ReadFails(fd) ? -1 : syscall(SYS_pread64, fd, to, bytes, offset);
}
ssize_t pread64(int fd, void* to, size_t bytes, off64_t offset) {
  return ReadFails(fd) ? -1 : syscall(SYS_pread64, fd, to, bytes, offset);
}

void* mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  return Map(address, bytes, protection, flags, fd, offset);
}
void* mmap64(void* address, size_t bytes, int protection, int flags, int fd, off64_t offset) {
  return Map(address, bytes, protection, flags, fd, offset);
}
int mprotect(void* address, size_t bytes, int protection) {
  if ((protection & PROT_WRITE) != 0 && FailsWith(ENOMEM, "alloc", "map")) return -1;
  return static_cast<int>(syscall(SYS_mprotect, address, bytes, protection));
}

ssize_t write(int fd, const void* from, size_t bytes) {
  return WriteFails(fd) ? -1 : syscall(SYS_write, fd, from, bytes);
}
ssize_t writev(int fd, const iovec* parts, int count) {
  return WriteFails(fd) ? -1 : syscall(SYS_writev, fd, parts, count);
}
ssize_t send(int fd, const void* from, size_t bytes, int flags) {
  return WriteFails(fd) ? -1 : syscall(SYS_sendto, fd, from, bytes, flags, nullptr, 0);
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  return WriteFails(fd) ? -1 : syscall(SYS_sendmsg, fd, message, flags);
}
int connect(int fd, const sockaddr* address, socklen_t bytes) {
  if (FailsWith(ECONNREFUSED, "socket", "connect")) return -1;
  return static_cast<int>(syscall(SYS_connect, fd, address, bytes));
}

}  // extern "C"

void* operator new(size_t bytes) { return New(bytes); }
void* operator new[](size_t bytes) { return New(bytes); }
