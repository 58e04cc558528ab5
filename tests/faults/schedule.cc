#include "tests/faults/schedule.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

namespace sirocco::faults {
namespace {

// The kernel's own calls: libc's of the same names may be those that fail.
int OpenFile(const char* path, int flags) {
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0600));
}
ssize_t ReadFile(int fd, char* to, size_t bytes) { return syscall(SYS_read, fd, to, bytes); }
void WriteFile(int fd, std::string_view text) { syscall(SYS_write, fd, text.data(), text.size()); }
void CloseFile(int fd) { syscall(SYS_close, fd); }
bool Look(const char* path, struct stat& info) {
  return syscall(SYS_newfstatat, AT_FDCWD, path, &info, 0) == 0;
}

bool Number(std::string_view& text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 1) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

}  // namespace

Schedule::Schedule(std::string_view value) {
  if (value.size() >= kMaxText) return;
  if (value.substr(0, 1) == "/") {
    std::copy(value.begin(), value.end(), path_.begin());
    good_ = true;
  } else {
    good_ = Parse(value);
  }
}

bool Schedule::Parse(std::string_view text) {
  count_ = 0;
  fired_ = 0;
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  std::copy(text.begin(), text.end(), text_.begin());
  text = {text_.data(), text.size()};
  while (!text.empty()) {
    const std::string_view rule = text.substr(0, text.find(','));
    if (count_ == kMaxRules || !ParseRule(rule, rules_[count_++])) return false;
    text.remove_prefix(std::min(text.size(), rule.size() + 1));
  }
  return true;
}

bool Schedule::ParseRule(std::string_view text, Rule& rule) {
  rule = {};
  const size_t at = text.find('@');
  if (at == std::string_view::npos) return false;
  const std::string_view name = text.substr(0, at);
  const size_t colon = std::min(name.find(':'), name.size());
  rule.kind = name.substr(0, colon);
  rule.call = name.substr(std::min(colon + 1, name.size()));
  text.remove_prefix(at + 1);
  if (rule.kind.empty() || !Number(text, rule.first)) return false;
  if (text == "+") {
    rule.every = 1;
  } else if (text.substr(0, 1) == "/") {
    text.remove_prefix(1);
    return Number(text, rule.every) && text.empty();
  } else {
    return text.empty();
  }
  return true;
}

void Schedule::Follow() {
  struct stat now = {};
  if (!Look(path_.data(), now)) {
    count_ = 0;
    file_ = {};
    return;
  }
  if (now.st_ino == file_.st_ino && now.st_mtim.tv_sec == file_.st_mtim.tv_sec &&
      now.st_mtim.tv_nsec == file_.st_mtim.tv_nsec) {
    return;
  }
  file_ = now;
  std::array<char, kMaxText> text;
  const int fd = OpenFile(path_.data(), O_RDONLY);
  const ssize_t bytes = fd < 0 ? 0 : ReadFile(fd, text.data(), text.size());
  if (fd >= 0) CloseFile(fd);
  good_ = Parse({text.data(), static_cast<size_t>(std::max<ssize_t>(bytes, 0))});
}

bool Schedule::Fails(std::string_view kind, std::string_view call) {
  const std::lock_guard lock(mutex_);
  if (path_[0] != '\0') Follow();
  bool fails = false;
  for (size_t i = 0; i < count_; ++i) {
    Rule& rule = rules_[i];
    if (rule.kind != kind || (!rule.call.empty() && rule.call != call)) continue;
    const int64_t behind = ++rule.seen - rule.first;
    fails |= behind == 0 || (behind > 0 && rule.every > 0 && behind % rule.every == 0);
  }
  fired_ += fails ? 1 : 0;
  return fails;
}

int64_t Schedule::fired() const {
  const std::lock_guard lock(mutex_);
  return fired_;
}

bool Fault(std::string_view kind, std::string_view call) {
  // Never destroyed: calls may fail until the process ends. Not on the heap: see above.
  alignas(Schedule) static char room[sizeof(Schedule)];
  static Schedule* const schedule = [] {
    const char* const value = std::getenv("SIROCCO_FAULTS");
    return new (room) Schedule(value == nullptr ? "" : value);
  }();
  const bool fails = schedule->Fails(kind, call);
  if (!schedule->good()) {
    WriteFile(STDERR_FILENO, "SIROCCO_FAULTS is not understood\n");
    std::abort();
  }
  if (!fails) return false;
  if (const char* const path = std::getenv("SIROCCO_FAULTS_FIRED"); path != nullptr) {
    std::array<char, 64> line;
    size_t size = 0;
    for (const std::string_view part :
         {kind, std::string_view(":"), call, std::string_view("\n")}) {
      size += part.copy(line.data() + size, line.size() - size);
    }
    const int fd = OpenFile(path, O_WRONLY | O_CREAT | O_APPEND);
    WriteFile(fd, {line.data(), size});
    CloseFile(fd);
  }
  return true;
}

}  // namespace sirocco::faults
