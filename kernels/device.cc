#include "kernels/device.h"

#include <chrono>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/params.h"

namespace sirocco {
namespace {

class PlainHostBuffer final : public Buffer {
 public:
  PlainHostBuffer(std::unique_ptr<std::byte[]> memory, size_t bytes)
      : Buffer(memory.get(), bytes), memory_(std::move(memory)) {}

 private:
  std::unique_ptr<std::byte[]> memory_;
};

}  // namespace

std::string_view NameOf(MemoryUse use) {
  switch (use) {
    case MemoryUse::kWeights:
      return "weights";
    case MemoryUse::kWorkspace:
      return "workspace";
    case MemoryUse::kLanes:
      return "lanes";
    case MemoryUse::kKv:
      return "kv";
    case MemoryUse::kGraphs:
      return "graphs";
  }
  return "?";
}

// What follows serves backends that have done the work when a call returns.

absl::StatusOr<std::unique_ptr<Buffer>> Device::AllocateHost(size_t bytes) {
  counters_.allocations.fetch_add(1, std::memory_order_relaxed);
  std::unique_ptr<std::byte[]> memory(new (std::nothrow) std::byte[bytes]());
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no ", bytes, " bytes of host memory"));
  }
  counters_.host_bytes.fetch_add(bytes, std::memory_order_relaxed);
  return std::make_unique<PlainHostBuffer>(std::move(memory), bytes);
}

absl::StatusOr<DeviceMark> Device::Mark() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return DeviceMark{static_cast<uint64_t>(std::chrono::nanoseconds(now).count())};
}

absl::Status Device::Wait(DeviceMark) { return Synchronize(); }

absl::StatusOr<double> Device::Seconds(DeviceMark from, DeviceMark to) {
  return static_cast<double>(to.value - from.value) * 1e-9;
}

absl::Status Device::Pack(const Matrix& matrix) {
  if (!InBlocks(matrix.dtype)) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("the ", std::string(backend()),
                                               " backend does not compute from blocks of ",
                                               std::string(NameOf(matrix.dtype))));
}

absl::StatusOr<double> Device::MeasureReadBandwidth(size_t) {
  return absl::UnimplementedError(
      absl::StrCat("the ", std::string(backend()), " backend measures no read bandwidth"));
}

absl::StatusOr<std::vector<std::string>> Device::TuneProducts(std::span<const MatMulParams>) {
  return absl::UnimplementedError(
      absl::StrCat("the ", std::string(backend()), " backend has no kernel table to tune"));
}

absl::Status Device::BeginPrepare() { return BeginRecord(); }

absl::Status Device::EndPrepare() { return EndRecord().status(); }

}  // namespace sirocco
