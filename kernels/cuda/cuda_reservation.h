// Address ranges that get their memory later, by CUDA's virtual memory management.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/device.h"

namespace sirocco::cuda {

// `context` and `counters` must outlive it.
absl::StatusOr<std::unique_ptr<Reservation>> ReserveDevice(CudaContext& context, size_t bytes,
                                                           MemoryUse use, DeviceCounters& counters);

}  // namespace sirocco::cuda
