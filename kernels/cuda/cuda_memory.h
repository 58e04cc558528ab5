// Memory of the device and of the host, as Device hands it out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/device.h"

namespace sirocco::cuda {

uint64_t FreeDeviceBytes(CudaContext& context);
uint64_t TotalDeviceBytes(CudaContext& context);

// Zeroed on the context's stream; RESOURCE_EXHAUSTED as Device says.
absl::StatusOr<std::unique_ptr<Buffer>> AllocateDevice(CudaContext& context, size_t bytes,
                                                       MemoryUse use, DeviceCounters& counters);
// Pinned, and mapped for the device to write at the same address.
absl::StatusOr<std::unique_ptr<Buffer>> AllocatePinned(CudaContext& context, size_t bytes);

// RESOURCE_EXHAUSTED with the use, the bytes asked and those free.
absl::Status Exhausted(CudaContext& context, size_t bytes, MemoryUse use);

}  // namespace sirocco::cuda
