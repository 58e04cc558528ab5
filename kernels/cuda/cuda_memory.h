// Memory of the device and of the host, as Device hands it out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/device.h"

namespace sirocco::cuda {

struct MemoryInfo {
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
};

// A fault of the device, where there is one.
absl::StatusOr<MemoryInfo> MemInfo(CudaContext& context);

// Zeroed on the context's stream; RESOURCE_EXHAUSTED as Device says.
absl::StatusOr<std::unique_ptr<Buffer>> AllocateDevice(CudaContext& context, size_t bytes,
                                                       MemoryUse use, DeviceCounters& counters);
// Pinned, and mapped for the device to write at the same address.
absl::StatusOr<std::unique_ptr<Buffer>> AllocatePinned(CudaContext& context, size_t bytes,
                                                       DeviceCounters& counters);

// RESOURCE_EXHAUSTED with the use, the bytes asked and those free; after a fault, the fault.
absl::Status Exhausted(CudaContext& context, size_t bytes, MemoryUse use);
// The same where more is asked than is free, else OK.
absl::Status CheckFree(CudaContext& context, size_t bytes, MemoryUse use);

}  // namespace sirocco::cuda
