#include "kernels/cuda/cuda_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
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
  void* data = nullptr;
  const size_t wanted = std::max<size_t>(bytes, 1);
  const cudaError_t error = cudaHostAlloc(&data, wanted, cudaHostAllocMapped);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // no fault of the device
    return absl::ResourceExhaustedError(
        absl::StrCat("the host has no ", bytes, " bytes of memory to pin"));
  }
  if (absl::Status status = context.Check("cudaHostAlloc", error); !status.ok()) return status;
  std::memset(data, 0, wanted);
  counters.host_bytes.fetch_add(bytes, std::memory_order_relaxed);
  return std::make_unique<PinnedBuffer>(data, bytes);
}

}  // namespace sirocco::cuda
