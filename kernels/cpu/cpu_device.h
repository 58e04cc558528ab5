// The CPU backend: the specification that every other backend is tested against, and the default
// where there is no GPU.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace sirocco {

// `threads` compute, the calling one included: 1 ... 1024, else INVALID_ARGUMENT. Activations are
// float32; weights and KV float32 or bfloat16, else UNIMPLEMENTED from the operation. Each output
// element is accumulated in one order, whatever the number of rows and threads.
absl::StatusOr<std::unique_ptr<Device>> CreateCpuDevice(int threads);

}  // namespace sirocco
