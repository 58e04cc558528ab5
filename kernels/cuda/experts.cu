// A layer's experts: the choice, then their weights as a stream (expert_choice.cu,
// expert_products.cu); or, of sizes that are no multiples of 16 bytes, the two plain kernels here,
// which read each chosen expert's weights once a row.
//
// Bytes: of each row's experts gate, up and down once (from caches where rows share them). Grids:
// eight outputs of a row's expert a block; eight outputs of a row a block. Shared memory: none.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/expert_work.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kWarps = kRowThreads / kWarp;

// The dot product of two vectors, by a warp.
template <typename T>
__device__ __forceinline__ float WarpDot(const T* a, const T* b, int count) {
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < count; i += kWarp) {
    sum += ToFloat(a[i]) * ToFloat(b[i]);
  }
  return WarpSum(sum);
}

// The block's first output, and which row's expert (or row) it is of.
struct OutputPlace {
  int item, output;

  __device__ explicit OutputPlace(int outputs) {
    const int blocks = (outputs + kWarps - 1) / kWarps;
    item = static_cast<int>(blockIdx.x) / blocks;
    output = static_cast<int>(blockIdx.x) % blocks * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  }
};

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    ExpertGateUpKernel(const __grid_constant__ ExpertWork work) {
  const ExpertsParams& p = work.p;
  const LayerParams& layer = LayerOf(p.layer);
  const int intermediate = p.layer.intermediate;
  const int width = p.hidden.width;
  const OutputPlace place(intermediate);
  WaitForDependency();
  LaunchDependents();
  if (place.output >= intermediate) return;  // the whole warp
  const int row = place.item / p.layer.experts_a_row;
  const T* const x = static_cast<const T*>(p.normed.data) + int64_t{row} * width;
  const int64_t first = (int64_t{p.chosen[place.item]} * intermediate + place.output) * width;
  const float gate = WarpDot(x, static_cast<const T*>(layer.gate.data) + first, width);
  const float up = WarpDot(x, static_cast<const T*>(layer.up.data) + first, width);
  if (threadIdx.x % kWarp != 0) return;
  static_cast<T*>(p.activated.data)[int64_t{place.item} * intermediate + place.output] =
      FromFloat<T>(Activate(layer.activation, gate) * up);
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    ExpertDownKernel(const __grid_constant__ ExpertWork work) {
  const ExpertsParams& p = work.p;
  const LayerParams& layer = LayerOf(p.layer);
  const int intermediate = p.layer.intermediate;
  const int width = p.hidden.width;
  const OutputPlace place(width);
  WaitForDependency();
  LaunchDependents();
  if (place.output < width) {
    float sum = 0;
    for (int i = 0; i < p.layer.experts_a_row; ++i) {
      const int64_t at = int64_t{place.item} * p.layer.experts_a_row + i;
      const T* const x = static_cast<const T*>(p.activated.data) + at * intermediate;
      const int64_t first = (int64_t{p.chosen[at]} * width + place.output) * intermediate;
      sum +=
          p.shares[at] * WarpDot(x, static_cast<const T*>(layer.down.data) + first, intermediate);
    }
    if (threadIdx.x % kWarp == 0) {
      static_cast<float*>(p.hidden.data)[int64_t{place.item} * width + place.output] += sum;
    }
  }
  AdvanceLayer(p.advance, work.counters, gridDim.x);
}

// What is multiplied and added by 16 bytes.
bool IsStreamed(const ExpertsParams& p) {
  const auto bytes = static_cast<int64_t>(BytesOf(p.normed.dtype));
  return p.hidden.width * bytes % 16 == 0 && p.hidden.width % 4 == 0 &&
         p.layer.intermediate * bytes % 16 == 0 && IsAligned(p.hidden.data, 16) &&
         IsAligned(p.normed.data, 16) && IsAligned(p.activated.data, 16);
}

cudaError_t LaunchPlainProducts(const ExpertWork& work, const LaunchContext& context) {
  const ExpertsParams& p = work.p;
  const int64_t up_blocks =
      int64_t{p.rows} * p.layer.experts_a_row * CeilDiv(p.layer.intermediate, kWarps);
  const int64_t down_blocks = p.rows * CeilDiv(p.hidden.width, kWarps);
  if (std::max(up_blocks, down_blocks) > INT32_MAX) return cudaErrorInvalidConfiguration;
  return WithType(p.normed.dtype, [&](auto zero) {
    using T = decltype(zero);
    const dim3 block(kRowThreads);
    const cudaError_t error = LaunchKernel(
        ExpertGateUpKernel<T>, dim3(static_cast<uint32_t>(up_blocks)), block, 0, context, work);
    if (error != cudaSuccess) return error;
    return LaunchKernel(ExpertDownKernel<T>, dim3(static_cast<uint32_t>(down_blocks)), block, 0,
                        context, work);
  });
}

// `rows` rows from `first` on, by the same scratch memory. Only the last part moves the layer on.
ExpertsParams PartOf(const ExpertsParams& p, int32_t first, int32_t rows) {
  const auto from = [&](const Rows& all) {
    Rows part = all;
    part.data = static_cast<char*>(all.data) +
                int64_t{first} * all.width * static_cast<int64_t>(BytesOf(all.dtype));
    return part;
  };
  ExpertsParams part = p;
  part.rows = rows;
  if (p.map.lane != nullptr) part.map.lane += first;
  if (p.map.position != nullptr) part.map.position += first;
  part.hidden = from(p.hidden);
  part.normed = from(p.normed);
  part.activated = from(p.activated);
  part.chosen += int64_t{first} * p.layer.experts_a_row;
  part.shares += int64_t{first} * p.layer.experts_a_row;
  if (first + rows < p.rows) part.advance = nullptr;
  return part;
}

}  // namespace

size_t ExpertsScratch(const ExpertsParams& p) {
  return ExpertWork(PartOf(p, 0, std::min(p.rows, kExpertRows)), nullptr, nullptr).scratch_bytes;
}

cudaError_t LaunchExperts(const ExpertsParams& p, const LaunchContext& context) {
  for (int32_t first = 0; first < p.rows; first += kExpertRows) {
    const ExpertWork work(PartOf(p, first, std::min(p.rows - first, kExpertRows)), context.scratch,
                          context.counters);
    cudaError_t error = LaunchExpertChoice(work, context);
    if (error != cudaSuccess) return error;
    error = IsStreamed(p) ? LaunchExpertProducts(work, context) : LaunchPlainProducts(work, context);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
