// Reading memory and nothing else: what the device's bandwidth is measured by.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kUnroll = 8;  // 16-byte loads a thread has under way

struct ReadStreamParams {
  const void* data;  // [count] of 16 bytes
  int64_t count;
  uint32_t* sink;  // [1]
};

// Reads all of data. Grid: fixed, each block takes every grid-th stretch of kRowThreads * kUnroll
// loads. The sum is stored only where it has one value, so that no load can be left out.
__global__ void __launch_bounds__(kRowThreads)
    ReadStreamKernel(const __grid_constant__ ReadStreamParams p) {
  WaitForDependency();
  LaunchDependents();
  const uint4* const data = static_cast<const uint4*>(p.data);
  constexpr int64_t kStretch = int64_t{kRowThreads} * kUnroll;
  uint32_t sum = 0;
  for (int64_t begin = int64_t{blockIdx.x} * kStretch; begin < p.count;
       begin += int64_t{gridDim.x} * kStretch) {
    uint4 loaded[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const int64_t i = begin + k * kRowThreads + threadIdx.x;
      loaded[k] = i < p.count ? data[i] : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      sum ^= loaded[k].x ^ loaded[k].y ^ loaded[k].z ^ loaded[k].w;
    }
  }
  if (sum == 0x9e3779b9u) *p.sink = sum;
}

}  // namespace

cudaError_t LaunchReadStream(const void* data, size_t bytes, uint32_t* sink,
                             const LaunchContext& context) {
  const ReadStreamParams params = {data, static_cast<int64_t>(bytes / sizeof(uint4)), sink};
  const dim3 grid(static_cast<uint32_t>(context.multiprocessors * 8));
  return LaunchKernel(ReadStreamKernel, grid, dim3(kRowThreads), 0, context, params);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
