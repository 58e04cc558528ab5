// Which experts each row takes: the norm, the router, the largest, and the list of items.
//
// Bytes: the residual stream once a block (from the L2 cache), the router once every one or four
// rows. Grids: eight experts of one or four rows a block; the last block to end also chooses, unless
// there are so many rows that a second kernel does it, a row a warp. Shared memory: the normed rows,
// and 4 KiB of counts. Every logit is summed in one order, whatever the rows.
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/expert_work.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/limits.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kWarps = kRowThreads / kWarp;
// Up to so many rows the last block of the first kernel chooses for all.
constexpr int kOneBlockRows = 8;
// From so many rows on a block reads its part of the router for four of them.
constexpr int kSharedRouterRows = 16;
constexpr int kRouterRows = 4;
// Of shared memory for their activations: what every GPU gives a block.
constexpr int64_t kRouterRowsBytes = 96 * 1024;
constexpr int kHeld = 8;  // of a router row, by a lane, in packs

// ---- One row's choice, by a warp ----------------------------------------------------------------

// Unsigned integers in the order of floats; of NaNs too there is an order.
__device__ __forceinline__ uint32_t OrderOf(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);  // -0 is 0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// Lane l has the experts l, l + 32, ...: kEach of them, some of which may not exist.
template <int kEach>
__device__ void ChooseRow(const ExpertWork& work, const LayerParams& layer, int row) {
  const ExpertsParams& p = work.p;
  const int experts = p.layer.experts;
  const int count = p.layer.experts_a_row;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float* const logits = work.logits + int64_t{row} * experts;
  int32_t* trace = layer.expert_trace;
  if (trace != nullptr) {
    trace += (int64_t{p.map.lane[row]} * p.lanes.max_length + p.map.position[row]) * count;
  }
  const bool imposed = trace != nullptr && layer.impose_experts;

  float logit[kEach];
  float most = -INFINITY;
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const bool exists = j * kWarp + lane < experts;
    logit[j] = exists ? __ldcg(logits + j * kWarp + lane) : -INFINITY;
    most = fmaxf(most, logit[j]);
  }
  most = WarpMax(most);

  uint32_t taken = 0;  // bit j: expert j * 32 + lane
  for (int i = 0; i < count; ++i) {
    int id;
    if (imposed) {
      id = trace[i];
    } else {
      uint32_t best = 0;
      int own = INT32_MAX;
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const uint32_t order = OrderOf(logit[j]);
        const bool is_free = (taken >> j & 1) == 0 && j * kWarp + lane < experts;
        if (is_free && (own == INT32_MAX || order > best)) {
          best = order;
          own = j * kWarp + lane;
        }
      }
      const uint32_t largest = __reduce_max_sync(kAllLanes, own == INT32_MAX ? 0 : best);
      const bool wins = own != INT32_MAX && best == largest;
      id = static_cast<int>(__reduce_min_sync(kAllLanes, static_cast<uint32_t>(wins ? own : INT32_MAX)));
    }
    if (id % kWarp == lane) taken |= 1u << id / kWarp;
  }

  float part[kEach];
  float sum = 0;
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    part[j] = j * kWarp + lane < experts ? expf(logit[j] - most) : 0;
    if (!layer.renormalise || (taken >> j & 1) != 0) sum += part[j];
  }
  sum = WarpSum(sum);
  int before = 0;
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const bool takes = (taken >> j & 1) != 0;
    const uint32_t lanes = __ballot_sync(kAllLanes, takes);
    if (takes) {
      const int i = before + __popc(lanes & ((1u << lane) - 1));
      p.chosen[int64_t{row} * count + i] = j * kWarp + lane;
      p.shares[int64_t{row} * count + i] = part[j] / sum;
      if (trace != nullptr && !imposed) trace[i] = j * kWarp + lane;
      if (p.rows == 1) {  // the items are known
        work.items[i] = {j * kWarp + lane, i, 1};
        work.pairs[i] = i;
      }
    }
    before += __popc(lanes);
  }
  if (p.rows == 1 && lane == 0) *work.item_count = count;
}

__device__ void ChooseRow(const ExpertWork& work, const LayerParams& layer, int row) {
  if (work.p.layer.experts <= 4 * kWarp) {
    ChooseRow<4>(work, layer, row);
  } else {
    ChooseRow<kMaxExperts / kWarp>(work, layer, row);
  }
}

// ---- The items, by a block ----------------------------------------------------------------------

// What all rows chose, by expert. Where a pair stands in its expert's list may differ from run to
// run, and no sum depends on it.
__device__ void ListItems(const ExpertWork& work) {
  __shared__ int counts[kMaxExperts];  // then where an expert's next pair goes
  const int experts = work.p.layer.experts;
  const int pairs = work.p.rows * work.p.layer.experts_a_row;
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kRowThreads) counts[e] = 0;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < pairs; i += kRowThreads) {
    atomicAdd(&counts[__ldcg(work.p.chosen + i)], 1);
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    int first_pair = 0, first_item = 0;
    for (int begin = 0; begin < experts; begin += kWarp) {
      const int e = begin + static_cast<int>(threadIdx.x);
      const int count = e < experts ? counts[e] : 0;
      const int items = (count + work.item_pairs - 1) / work.item_pairs;
      const int pairs_to = first_pair + WarpPrefixSum(count);
      const int items_to = first_item + WarpPrefixSum(items);
      if (e < experts) counts[e] = pairs_to - count;
      for (int i = 0; i < items; ++i) {
        const int done = i * work.item_pairs;
        work.items[items_to - items + i] = {e, pairs_to - count + done,
                                            min(count - done, work.item_pairs)};
      }
      first_pair = __shfl_sync(kAllLanes, pairs_to, kWarp - 1);
      first_item = __shfl_sync(kAllLanes, items_to, kWarp - 1);
    }
    if (threadIdx.x == 0) *work.item_count = first_item;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < pairs; i += kRowThreads) {
    work.pairs[atomicAdd(&counts[__ldcg(work.p.chosen + i)], 1)] = i;
  }
}

// ---- Kernels ------------------------------------------------------------------------------------

// kWide: elements loaded at once; the width is a multiple of it.
template <typename T, int kWide, int kRows>
__global__ void __launch_bounds__(kRowThreads)
    ExpertLogitsKernel(const __grid_constant__ ExpertWork work) {
  constexpr int kFloats = kWide < 4 ? kWide : 4;
  __shared__ float partial[kRows][kWarps];
  const ExpertsParams& p = work.p;
  const LayerParams& layer = LayerOf(p.layer);
  T* const x = reinterpret_cast<T*>(DynamicShared());  // [kRows][width]
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int width = p.hidden.width;
  const int expert_blocks = (p.layer.experts + kWarps - 1) / kWarps;
  const int first_row = static_cast<int>(blockIdx.x) / expert_blocks * kRows;
  const int expert_block = static_cast<int>(blockIdx.x) % expert_blocks;
  const int expert = expert_block * kWarps + warp;
  const int rows = min(kRows, p.rows - first_row);
  const T* const router = static_cast<const T*>(layer.router.data) + int64_t{expert} * width;
  // Of the router's row the lane's first packs in registers, the rest on its way to the cache.
  Pack<T, kWide> held[kHeld];
  if (expert < p.layer.experts) {
    constexpr int kLine = 128 / sizeof(T);
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const int i = (j * kWarp + lane) * kWide;
      if (i < width) held[j] = LoadPack<T, kWide>(router + i);
    }
    for (int i = kHeld * kWarp * kWide + lane * kLine; i < width; i += kWarp * kLine) {
      PrefetchL2(router + i);
    }
  }
  if (layer.mlp_norm != nullptr) PrefetchFloats<kRowThreads>(layer.mlp_norm, width);
  WaitForDependency();
  LaunchDependents();

  const float* const hidden = static_cast<const float*>(p.hidden.data) + int64_t{first_row} * width;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r >= rows) break;
    float squares = 0;
    for (int i = static_cast<int>(threadIdx.x) * kFloats; i < width; i += kRowThreads * kFloats) {
      const auto h = LoadPack<float, kFloats>(hidden + int64_t{r} * width + i);
#pragma unroll
      for (int e = 0; e < kFloats; ++e) squares += h.at[e] * h.at[e];
    }
    squares = WarpSum(squares);
    if (lane == 0) partial[r][warp] = squares;
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r >= rows) break;
    float squares = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) squares += partial[r][w];
    const float inverse = 1.0f / sqrtf(squares / static_cast<float>(width) + layer.norm_epsilon);
    T* const normed = static_cast<T*>(p.normed.data) + int64_t{first_row + r} * width;
    for (int i = static_cast<int>(threadIdx.x) * kFloats; i < width; i += kRowThreads * kFloats) {
      const auto h = LoadPack<float, kFloats>(hidden + int64_t{r} * width + i);
      Pack<T, kFloats> out;
#pragma unroll
      for (int e = 0; e < kFloats; ++e) {
        const float scaled =
            layer.mlp_norm != nullptr ? h.at[e] * inverse * layer.mlp_norm[i + e] : h.at[e];
        out.at[e] = FromFloat<T>(scaled);
      }
      StorePack(out, x + r * width + i);
      if (expert_block == 0) StorePack(out, normed + i);
    }
  }
  __syncthreads();

  if (expert < p.layer.experts) {
    float sums[kRows] = {};
    const auto add = [&](const Pack<T, kWide>& w, int i) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const auto in = LoadPack<T, kWide>(x + r * width + i);  // of no row: not stored
#pragma unroll
        for (int e = 0; e < kWide; ++e) sums[r] += ToFloat(w.at[e]) * ToFloat(in.at[e]);
      }
    };
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const int i = (j * kWarp + lane) * kWide;
      if (i < width) add(held[j], i);
    }
#pragma unroll 4
    for (int i = (kHeld * kWarp + lane) * kWide; i < width; i += kWarp * kWide) {
      add(LoadPack<T, kWide>(router + i), i);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float logit = WarpSum(sums[r]);
      if (lane == 0 && r < rows) {
        work.logits[int64_t{first_row + r} * p.layer.experts + expert] = logit;
      }
    }
  }
  if (p.rows > kOneBlockRows || !LastToArrive(work.counters, gridDim.x)) return;
  for (int row = warp; row < p.rows; row += kWarps) ChooseRow(work, layer, row);
  if (p.rows == 1) return;
  __syncthreads();
  ListItems(work);
}

__global__ void __launch_bounds__(kRowThreads)
    ExpertChoiceKernel(const __grid_constant__ ExpertWork work) {
  const LayerParams& layer = LayerOf(work.p.layer);
  WaitForDependency();
  LaunchDependents();
  const int row = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / kWarp);
  if (row < work.p.rows) ChooseRow(work, layer, row);
  if (LastToArrive(work.counters, gridDim.x)) ListItems(work);
}

template <typename T, int kWide, int kRows>
cudaError_t LaunchLogits(const ExpertWork& work, const LaunchContext& context) {
  const auto kernel = ExpertLogitsKernel<T, kWide, kRows>;
  const size_t shared = sizeof(T) * kRows * static_cast<size_t>(work.p.hidden.width);
  if (const cudaError_t error = AllowShared(kernel, shared); error != cudaSuccess) return error;
  const int64_t blocks = CeilDiv(work.p.rows, kRows) * CeilDiv(work.p.layer.experts, kWarps);
  return LaunchKernel(kernel, dim3(static_cast<uint32_t>(blocks)), dim3(kRowThreads), shared,
                      context, work);
}

}  // namespace

cudaError_t LaunchExpertChoice(const ExpertWork& work, const LaunchContext& context) {
  const ExpertsParams& p = work.p;
  const cudaError_t error = WithType(p.normed.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kWide = static_cast<int>(16 / sizeof(T));
    return WithCount<kWide>({p.hidden.width}, {p.hidden.data, p.normed.data}, [&](auto wide) {
      const bool fits = int64_t{kRouterRows} * p.hidden.width * sizeof(T) <= kRouterRowsBytes;
      const bool shares = fits && p.rows >= kSharedRouterRows;
      // Both are loaded: the step that follows may have fewer rows.
      cudaError_t last = cudaSuccess;
      if (context.load_only || !shares) last = LaunchLogits<T, wide.value, 1>(work, context);
      if (last == cudaSuccess && (context.load_only ? fits : shares)) {
        last = LaunchLogits<T, wide.value, kRouterRows>(work, context);
      }
      return last;
    });
  });
  if (error != cudaSuccess || (p.rows <= kOneBlockRows && !context.load_only)) return error;
  return LaunchKernel(ExpertChoiceKernel, dim3(static_cast<uint32_t>(CeilDiv(p.rows, kWarps))),
                      dim3(kRowThreads), 0, context, work);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
