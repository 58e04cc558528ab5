#include "server/model/host_limits.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <thread>

namespace sirocco {
namespace {

// cgroup v2, as a container sees its own (man 7 cgroups).
constexpr char kMemoryLimit[] = "/sys/fs/cgroup/memory.max";
constexpr char kMemoryUsed[] = "/sys/fs/cgroup/memory.current";
constexpr char kCpuQuota[] = "/sys/fs/cgroup/cpu.max";

// The file's first number; nullopt where there is none ("max", no such file).
std::optional<int64_t> ReadNumber(const char* path) {
  std::ifstream in(path);
  int64_t value = 0;
  if (in >> value) return value;
  return std::nullopt;
}

int64_t MemAvailable() {
  std::ifstream in("/proc/meminfo");
  std::string word;
  while (in >> word) {
    int64_t kilobytes = 0;
    if (word == "MemAvailable:" && in >> kilobytes) return kilobytes * 1024;
  }
  return std::numeric_limits<int64_t>::max();
}

}  // namespace

int64_t AvailableMemory() {
  int64_t available = MemAvailable();
  const std::optional<int64_t> limit = ReadNumber(kMemoryLimit);
  const std::optional<int64_t> used = ReadNumber(kMemoryUsed);
  if (limit.has_value() && used.has_value()) {
    available = std::min(available, std::max<int64_t>(0, *limit - *used));
  }
  return available;
}

int AvailableCores() {
  int cores = std::max(1u, std::thread::hardware_concurrency());
  std::ifstream in(kCpuQuota);
  double quota = 0, period = 0;
  if (in >> quota >> period && period > 0) {
    cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(quota / period))));
  }
  return cores;
}

}  // namespace sirocco
