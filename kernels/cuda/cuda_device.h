// Device on one CUDA GPU: one stream, one thread. Inside the plugin; programs open it by open.h.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/open.h"
#include "kernels/device.h"

namespace sirocco {

// As OpenCudaDevice, of which this is the part behind the plugin.
absl::StatusOr<std::unique_ptr<Device>> CreateCudaDevice(const CudaOptions& options);

}  // namespace sirocco
