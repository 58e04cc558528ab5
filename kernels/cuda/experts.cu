// A layer's experts, plainly: three kernels that read each chosen expert's weights once a row.
//
// Bytes: the router once; of each row's experts gate, up and down once (from caches where rows
// share them). Grids: a row a block; eight outputs of a row's expert a block; eight outputs of a
// row a block. Shared memory: 8 bytes an expert. Assumes: at most kMaxExperts.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/limits.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kWarps = kRowThreads / kWarp;
constexpr float kLowest = -3.4e38f;

struct ExpertsArgs {
  ExpertsParams p;
  uint32_t* counter;  // [1]
};

// The dot product of two vectors, by a warp.
template <typename T>
__device__ __forceinline__ float WarpDot(const T* a, const T* b, int count) {
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < count; i += kWarp) {
    sum += ToFloat(a[i]) * ToFloat(b[i]);
  }
  return WarpSum(sum);
}

// The id of the largest of `logits` that is not taken yet, of equal ones the lowest; by a warp.
__device__ int Largest(const float* logits, const bool* taken, int experts) {
  float best = kLowest;
  int id = experts;
  for (int e = static_cast<int>(threadIdx.x) % kWarp; e < experts; e += kWarp) {
    if (taken[e] || (id < experts && logits[e] <= best)) continue;
    best = logits[e];
    id = e;
  }
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, best, offset);
    const int other_id = __shfl_xor_sync(kAllLanes, id, offset);
    if (other_id == experts || (id < experts && (other < best || (other == best && id < other_id))))
      continue;
    best = other;
    id = other_id;
  }
  return id;
}

// From logits to the row's ids, from the lowest on, and their shares; by one warp.
__device__ void Choose(const ExpertsParams& p, const LayerParams& layer, int row,
                       const float* logits, bool* taken) {
  const int experts = p.layer.experts;
  const int count = p.layer.experts_a_row;
  const int lane = static_cast<int>(threadIdx.x);
  int32_t* const chosen = p.chosen + int64_t{row} * count;
  int32_t* trace = layer.expert_trace;
  if (trace != nullptr) {
    trace += (int64_t{p.map.lane[row]} * p.lanes.max_length + p.map.position[row]) * count;
  }
  const bool imposed = trace != nullptr && layer.impose_experts;
  for (int e = lane; e < experts; e += kWarp) taken[e] = false;
  __syncwarp();
  for (int i = 0; i < count; ++i) {
    const int id = imposed ? trace[i] : Largest(logits, taken, experts);
    if (lane == 0) taken[id] = true;
    __syncwarp();
  }
  if (lane != 0) return;
  float most = logits[0];
  for (int e = 1; e < experts; ++e) most = fmaxf(most, logits[e]);
  float sum = 0;
  int found = 0;
  for (int e = 0; e < experts; ++e) {
    if (taken[e] || !layer.renormalise) sum += expf(logits[e] - most);
    if (taken[e]) chosen[found++] = e;
  }
  for (int i = 0; i < count; ++i) {
    p.shares[int64_t{row} * count + i] = expf(logits[chosen[i]] - most) / sum;
    if (trace != nullptr && !imposed) trace[i] = chosen[i];
  }
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    ExpertChoiceKernel(const __grid_constant__ ExpertsArgs args) {
  __shared__ float partial[kWarps];
  __shared__ float logits[kMaxExperts];
  __shared__ bool taken[kMaxExperts];
  const ExpertsParams& p = args.p;
  const LayerParams& layer = LayerOf(p.layer);
  WaitForDependency();
  LaunchDependents();
  const int row = static_cast<int>(blockIdx.x);
  const int width = p.hidden.width;
  const float* const hidden = static_cast<const float*>(p.hidden.data) + int64_t{row} * width;
  T* const normed = static_cast<T*>(p.normed.data) + int64_t{row} * width;
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kRowThreads) {
    squares += hidden[i] * hidden[i];
  }
  const float mean = BlockSum<kRowThreads>(squares, partial) / static_cast<float>(width);
  const float inverse = 1.0f / sqrtf(mean + layer.norm_epsilon);
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kRowThreads) {
    const bool norms = layer.mlp_norm != nullptr;
    normed[i] = FromFloat<T>(norms ? hidden[i] * inverse * layer.mlp_norm[i] : hidden[i]);
  }
  __syncthreads();
  const T* const router = static_cast<const T*>(layer.router.data);
  for (int e = static_cast<int>(threadIdx.x) / kWarp; e < p.layer.experts; e += kWarps) {
    const float logit = WarpDot(normed, router + int64_t{e} * width, width);
    if (threadIdx.x % kWarp == 0) logits[e] = logit;
  }
  __syncthreads();
  if (threadIdx.x < kWarp) Choose(p, layer, row, logits, taken);
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
    ExpertGateUpKernel(const __grid_constant__ ExpertsArgs args) {
  const ExpertsParams& p = args.p;
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
    ExpertDownKernel(const __grid_constant__ ExpertsArgs args) {
  const ExpertsParams& p = args.p;
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
  AdvanceLayer(p.advance, args.counter, gridDim.x);
}

}  // namespace

cudaError_t LaunchExperts(const ExpertsParams& p, const LaunchContext& context) {
  const ExpertsArgs args = {p, context.counters};
  const int64_t up_blocks =
      int64_t{p.rows} * p.layer.experts_a_row * CeilDiv(p.layer.intermediate, kWarps);
  const int64_t down_blocks = p.rows * CeilDiv(p.hidden.width, kWarps);
  if (std::max(up_blocks, down_blocks) > INT32_MAX) return cudaErrorInvalidConfiguration;
  return WithType(p.normed.dtype, [&](auto zero) {
    using T = decltype(zero);
    const dim3 block(kRowThreads);
    cudaError_t error = LaunchKernel(ExpertChoiceKernel<T>, dim3(static_cast<uint32_t>(p.rows)),
                                     block, 0, context, args);
    if (error == cudaSuccess) {
      error = LaunchKernel(ExpertGateUpKernel<T>, dim3(static_cast<uint32_t>(up_blocks)), block, 0,
                           context, args);
    }
    if (error == cudaSuccess) {
      error = LaunchKernel(ExpertDownKernel<T>, dim3(static_cast<uint32_t>(down_blocks)), block, 0,
                           context, args);
    }
    return error;
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
