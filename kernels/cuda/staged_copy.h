// Copies of pageable memory to the device, through two pinned buffers: while one is on its way the
// next is filled. For tables of a few MiB; weights have pinned buffers of their own.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/device.h"

namespace sirocco::cuda {

class StagedCopy {
 public:
  StagedCopy(CudaContext& context, DeviceCounters& counters)
      : context_(context), counters_(counters) {}
  ~StagedCopy();
  StagedCopy(const StagedCopy&) = delete;
  StagedCopy& operator=(const StagedCopy&) = delete;

  // When it returns `host` has been read; the copy is ordered on the stream. RESOURCE_EXHAUSTED
  // where the system has no memory to pin.
  absl::Status Copy(void* device, const void* host, size_t bytes);

 private:
  struct Half {
    std::unique_ptr<Buffer> memory;
    cudaEvent_t copied = nullptr;  // what it held last is on the device
  };

  absl::Status Prepare();

  CudaContext& context_;
  DeviceCounters& counters_;
  Half halves_[2];
  int next_ = 0;
};

}  // namespace sirocco::cuda
