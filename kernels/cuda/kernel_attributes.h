// Attributes of kernels, asked of CUDA once a kernel and device: a step of prompts launches some
// hundred kernels one by one, and each such call takes CUDA's locks on the way to the driver.
#pragma once

#include <cuda_runtime_api.h>

namespace sirocco::cuda {

// Sees to it that `attribute` of `kernel` is at least `value` (0 or more) on the calling thread's
// device. Never lowers it. For any thread; takes no lock and does not allocate where the attribute
// is as wanted. Holds as long as the process does: nobody resets a device.
cudaError_t RaiseAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

}  // namespace sirocco::cuda
