#include "kernels/cuda/cuda_memory.h"

#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace sirocco::cuda {
namespace {

class DeviceBuffer final : public Buffer {
 public:
  DeviceBuffer(void* data, size_t bytes) : Buffer(data, bytes) {}
  // Waits for the work that may still use it.
  ~DeviceBuffer() override { cudaFree(data_); }
};

class PinnedBuffer final : public Buffer {
 public:
  PinnedBuffer(void* data, size_t bytes) : Buffer(data, bytes) {}
  // Copies that read or write it may be under way.
  ~PinnedBuffer() override {
    cudaDeviceSynchronize();
    cudaFreeHost(data_);
  }
};

constexpr size_t kHugePageBytes = size_t{2} << 20;

// Memory of this process from a huge page's begin on, pinned where it lies. 32 MiB on a host of an
// H200: made in 7 to 9 ms and freed in 1, by cudaHostAlloc, in pages of 4 KiB, in 22 and 5.
class HugePinnedBuffer final : public Buffer {
 public:
  // nullptr: there is no more memory.
  static std::unique_ptr<HugePinnedBuffer> Map(size_t bytes) {
    if (bytes > SIZE_MAX - kHugePageBytes) return nullptr;
    const size_t mapped = bytes + kHugePageBytes;
    void* const mapping =
        mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return nullptr;
    const auto begin = reinterpret_cast<uintptr_t>(mapping);
    const size_t before = (kHugePageBytes - begin % kHugePageBytes) % kHugePageBytes;
    std::byte* const data = static_cast<std::byte*>(mapping) + before;
    madvise(data, bytes, MADV_HUGEPAGE);  // advice: where it is not taken, pages are small
    return std::unique_ptr<HugePinnedBuffer>(new HugePinnedBuffer(mapping, mapped, data, bytes));
  }
  // Copies that read or write it may be under way.
  ~HugePinnedBuffer() override {
    if (pinned_) {
      cudaDeviceSynchronize();
      cudaHostUnregister(data_);
    }
    munmap(mapping_, mapped_);
  }

  // Once.
  cudaError_t Pin() {
    const cudaError_t error = cudaHostRegister(data_, bytes_, cudaHostRegisterMapped);
    pinned_ = error == cudaSuccess;
    return error;
  }

 private:
  HugePinnedBuffer(void* mapping, size_t mapped, void* data, size_t bytes)
      : Buffer(data, bytes), mapping_(mapping), mapped_(mapped) {}

  void* const mapping_;
  const size_t mapped_;
  bool pinned_ = false;
};

absl::Status NothingToPin(size_t bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the host has no ", bytes, " bytes of memory to pin"));
}

absl::StatusOr<std::unique_ptr<Buffer>> PinHugePages(CudaContext& context, size_t bytes) {
  std::unique_ptr<HugePinnedBuffer> buffer = HugePinnedBuffer::Map(bytes);
  if (buffer == nullptr) return NothingToPin(bytes);
  const cudaError_t error = buffer->Pin();
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // no fault of the device
    return NothingToPin(bytes);
  }
  if (absl::Status status = context.Check("cudaHostRegister", error); !status.ok()) return status;
  return buffer;
}

}  // namespace

absl::StatusOr<MemoryInfo> MemInfo(CudaContext& context) {
  if (absl::Status status = context.Enter(); !status.ok()) return status;
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  absl::Status status = context.Check("cudaMemGetInfo", cudaMemGetInfo(&free_bytes, &total_bytes));
  if (!status.ok()) return status;
  return MemoryInfo{free_bytes, total_bytes};
}

absl::Status Exhausted(CudaContext& context, size_t bytes, MemoryUse use) {
  const absl::StatusOr<MemoryInfo> info = MemInfo(context);
  if (!info.ok()) return info.status();
  return absl::ResourceExhaustedError(
      absl::StrCat("not enough GPU memory for ", std::string(NameOf(use)), ": ", bytes,
                   " bytes asked, ", info->free_bytes, " bytes free"));
}

absl::Status CheckFree(CudaContext& context, size_t bytes, MemoryUse use) {
  const absl::StatusOr<MemoryInfo> info = MemInfo(context);
  if (!info.ok()) return info.status();
  return bytes <= info->free_bytes ? absl::OkStatus() : Exhausted(context, bytes, use);
}

absl::StatusOr<std::unique_ptr<Buffer>> AllocateDevice(CudaContext& context, size_t bytes,
                                                       MemoryUse use, DeviceCounters& counters) {
  counters.allocations.fetch_add(1, std::memory_order_relaxed);
  if (absl::Status status = CheckFree(context, bytes, use); !status.ok()) return status;
  void* data = nullptr;
  const size_t wanted = std::max<size_t>(bytes, 1);
  const cudaError_t error = cudaMalloc(&data, wanted);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // no fault of the device
    return Exhausted(context, bytes, use);
  }
  if (absl::Status status = context.Check("cudaMalloc", error); !status.ok()) return status;
  auto buffer = std::make_unique<DeviceBuffer>(data, bytes);
  absl::Status status =
      context.Check("cudaMemsetAsync", cudaMemsetAsync(data, 0, wanted, context.stream()));
  if (!status.ok()) return status;
  counters.bytes[static_cast<int>(use)].fetch_add(bytes, std::memory_order_relaxed);
  return buffer;
}

absl::StatusOr<std::unique_ptr<Buffer>> AllocatePinned(CudaContext& context, size_t bytes,
                                                       DeviceCounters& counters) {
  if (absl::Status status = context.Enter(); !status.ok()) return status;
  counters.allocations.fetch_add(1, std::memory_order_relaxed);
  if (bytes >= kHugePageBytes && context.same_address_where_pinned()) {
    absl::StatusOr<std::unique_ptr<Buffer>> buffer = PinHugePages(context, bytes);
    if (buffer.ok()) counters.host_bytes.fetch_add(bytes, std::memory_order_relaxed);
    return buffer;
  }
  void* data = nullptr;
  const size_t wanted = std::max<size_t>(bytes, 1);
  const cudaError_t error = cudaHostAlloc(&data, wanted, cudaHostAllocMapped);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // no fault of the device
    return NothingToPin(bytes);
  }
  if (absl::Status status = context.Check("cudaHostAlloc", error); !status.ok()) return status;
  std::memset(data, 0, wanted);
  counters.host_bytes.fetch_add(bytes, std::memory_order_relaxed);
  return std::make_unique<PinnedBuffer>(data, bytes);
}

}  // namespace sirocco::cuda
