#include "kernels/cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sirocco::cpu {
namespace {

constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

// Huge pages for what is streamed as a whole; KV pages stay small, since most may stay untouched.
constexpr size_t kHugePageThreshold = size_t{4} << 20;

size_t PageBytes() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// 0 where `bytes` rounded up does not fit a size_t.
size_t RoundToPages(size_t bytes) {
  const size_t page = PageBytes();
  const size_t wanted = std::max<size_t>(bytes, 1);
  if (wanted > kNoLimit - page) return 0;
  return (wanted + page - 1) / page * page;
}

// The number after `key` at a line's begin, else `fallback`.
size_t NumberInFile(const char* path, const std::string& key, size_t fallback) {
  std::ifstream file(path);
  size_t value = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const size_t digit = line.find_first_of("0123456789", key.size());
    if (digit == std::string::npos) return fallback;  // "max"
    value = 0;
    for (size_t i = digit; i < line.size() && line[i] >= '0' && line[i] <= '9'; ++i) {
      value = value * 10 + static_cast<size_t>(line[i] - '0');
    }
    return value;
  }
  return fallback;
}

// What the control group (version 2) has left; file cache that it can drop counts as free.
size_t ControlGroupBytes() {
  const size_t limit = NumberInFile("/sys/fs/cgroup/memory.max", "", kNoLimit);
  if (limit == kNoLimit) return kNoLimit;
  const size_t used = NumberInFile("/sys/fs/cgroup/memory.current", "", 0);
  const size_t cached = NumberInFile("/sys/fs/cgroup/memory.stat", "inactive_file", 0);
  const size_t held = used - std::min(used, cached);
  return limit - std::min(limit, held);
}

absl::Status Exhausted(size_t bytes, MemoryUse use) {
  return absl::ResourceExhaustedError(
      absl::StrCat("not enough memory for ", std::string(NameOf(use)), ": ", bytes,
                   " bytes asked, ", AvailableBytes(), " bytes free"));
}

class PageBuffer : public Buffer {
 public:
  PageBuffer(void* data, size_t bytes, size_t mapped) : Buffer(data, bytes), mapped_(mapped) {}
  ~PageBuffer() override { munmap(data_, mapped_); }

 private:
  size_t mapped_;
};

class PageReservation : public Reservation {
 public:
  PageReservation(void* data, size_t bytes, size_t reserved, MemoryUse use,
                  DeviceCounters& counters)
      : Reservation(data, bytes), reserved_(reserved), use_(use), counters_(counters) {}
  ~PageReservation() override { munmap(data_, reserved_); }

  absl::Status Map(size_t bytes) override {
    if (mapped_) return absl::FailedPreconditionError("a reservation is mapped once only");
    if (bytes > bytes_) {
      return absl::InvalidArgumentError(
          absl::StrCat("a reservation of ", bytes_, " bytes cannot map ", bytes));
    }
    const size_t rounded = RoundToPages(bytes);
    counters_.allocations.fetch_add(1, std::memory_order_relaxed);
    if (rounded > AvailableBytes() || mprotect(data_, rounded, PROT_READ | PROT_WRITE) != 0) {
      return Exhausted(bytes, use_);
    }
    mapped_ = true;
    counters_.bytes[static_cast<int>(use_)].fetch_add(bytes, std::memory_order_relaxed);
    return absl::OkStatus();
  }

 private:
  size_t reserved_;
  MemoryUse use_;
  DeviceCounters& counters_;
  bool mapped_ = false;
};

}  // namespace

size_t AvailableBytes() {
  const size_t kib = NumberInFile("/proc/meminfo", "MemAvailable:", kNoLimit / 1024);
  return std::min(kib * 1024, ControlGroupBytes());
}

size_t TotalBytes() {
  const size_t kib = NumberInFile("/proc/meminfo", "MemTotal:", kNoLimit / 1024);
  return std::min(kib * 1024, NumberInFile("/sys/fs/cgroup/memory.max", "", kNoLimit));
}

absl::StatusOr<std::unique_ptr<Buffer>> AllocatePages(size_t bytes, MemoryUse use,
                                                      DeviceCounters& counters) {
  counters.allocations.fetch_add(1, std::memory_order_relaxed);
  const size_t rounded = RoundToPages(bytes);
  if (rounded == 0 || rounded > AvailableBytes()) return Exhausted(bytes, use);
  void* data = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return Exhausted(bytes, use);
  if (use == MemoryUse::kWeights && rounded >= kHugePageThreshold) {
    madvise(data, rounded, MADV_HUGEPAGE);  // only speed depends on it
  }
  counters.bytes[static_cast<int>(use)].fetch_add(bytes, std::memory_order_relaxed);
  return std::make_unique<PageBuffer>(data, bytes, rounded);
}

absl::StatusOr<std::unique_ptr<Reservation>> ReservePages(size_t bytes, MemoryUse use,
                                                          DeviceCounters& counters) {
  counters.allocations.fetch_add(1, std::memory_order_relaxed);
  const size_t rounded = RoundToPages(bytes);
  if (rounded == 0) return Exhausted(bytes, use);
  void* data =
      mmap(nullptr, rounded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return Exhausted(bytes, use);
  return std::make_unique<PageReservation>(data, bytes, rounded, use, counters);
}

}  // namespace sirocco::cpu
