// Copies of large pageable memory to the device, through two pinned buffers: while one is on its
// way the next is filled, so that reading a file's pages, converting and copying overlap. Several
// threads fill a buffer: one alone reads a file that is in the page cache at a tenth of the rate of
// the link to the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/device.h"
#include "kernels/thread_pool.h"

namespace sirocco::cuda {

class StagedCopy {
 public:
  StagedCopy(CudaContext& context, DeviceCounters& counters)
      : context_(context), counters_(counters) {}
  ~StagedCopy();
  StagedCopy(const StagedCopy&) = delete;
  StagedCopy& operator=(const StagedCopy&) = delete;

  // When it returns `host` has been read; the copy is ordered on the stream. RESOURCE_EXHAUSTED
  // where the system has no memory to pin, or no threads.
  absl::Status Copy(void* device, const void* host, size_t bytes);

 private:
  struct Half {
    std::unique_ptr<Buffer> memory;
    cudaEvent_t copied = nullptr;  // what it held last is on the device
  };

  absl::Status Prepare();

  CudaContext& context_;
  DeviceCounters& counters_;
  std::unique_ptr<ThreadPool> threads_;
  Half halves_[2];
  int next_ = 0;
};

}  // namespace sirocco::cuda
