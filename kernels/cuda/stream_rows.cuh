// The activations of a streamed product in shared memory, as T: rows that are ready, or the norm of
// the residual stream, which every block computes for itself. By the consumer threads.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/norm_rows.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/stream_plan.h"
#include "kernels/cuda/stream_ring.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Columns beyond the last, which the sums read: zeros.
template <typename T>
__device__ __forceinline__ void ClearPadding(const StreamPlan& plan, T* x) {
  const int padding =
      (plan.columns + kStreamColumnBlock - 1) / kStreamColumnBlock * kStreamColumnBlock -
      plan.columns;
  for (int i = threadIdx.x; i < plan.rows * padding; i += kStreamConsumers) {
    x[i / padding * plan.x_stride + plan.columns + i % padding] = FromFloat<T>(0.0f);
  }
}

// x[row] = in[row], 16 bytes at a time.
template <typename T>
__device__ __forceinline__ void CopyRows(const StreamPlan& plan, const T* in, T* x) {
  constexpr int kChunk = 16 / sizeof(T);
  const int chunks = plan.columns / kChunk;
#pragma unroll 4
  for (int i = threadIdx.x; i < plan.rows * chunks; i += kStreamConsumers) {
    const int row = i / chunks;
    const int column = (i - row * chunks) * kChunk;
    StorePack(LoadPack<T, kChunk>(in + int64_t{row} * plan.columns + column),
              x + row * plan.x_stride + column);
  }
  ClearPadding(plan, x);
}

// The norms of up to kStreamRows rows at once: each row by 8, 4, 2 or 1 of the warps. Ends every
// four elements by store(row, column, pack). `shared`: [2 * kStreamWarps] floats. `write_sum`: also
// writes norms.sum.
template <typename Store>
__device__ __forceinline__ void NormRows(const Norms& norms, int rows, bool write_sum,
                                         float* shared, const Store& store) {
  constexpr int kHeld = 4;  // packs of a thread that stay in registers between the passes
  using Pack4 = Pack<float, 4>;
  const int warps = rows == 1 ? 8 : rows == 2 ? 4 : rows <= 4 ? 2 : 1;
  const int threads = warps * kWarp;
  const int warp = threadIdx.x / kWarp;
  const int row = warp / warps;
  const bool active = row < rows;
  const int first = active ? static_cast<int>(threadIdx.x) % threads : norms.width;
  const int packs = norms.width / 4;
  const int64_t at = int64_t{row} * norms.width;

  const auto row_sum = [&](float value, float* partial) {
    value = WarpSum(value);
    if (threadIdx.x % kWarp == 0) partial[warp] = value;
    SyncConsumers();
    float sum = 0;
    for (int i = 0; i < warps; ++i) sum += partial[row * warps + i];
    return sum;
  };
  const auto square = [](const Pack4& pack) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) squares += pack.at[i] * pack.at[i];
    return squares;
  };

  float delta_inverse = 0;
  if (norms.post != nullptr) {
    float squares = 0;
#pragma unroll 4
    for (int i = first; i < packs; i += threads) {
      squares += square(LoadPack<float, 4>(norms.delta + at + 4 * i));
    }
    delta_inverse = norms.InverseRms(row_sum(squares, shared));
  }
  const auto joined = [&](int i) {
    Pack4 s = LoadPack<float, 4>(norms.hidden + at + 4 * i);
    if (norms.post == nullptr) return s;
    const Pack4 delta = LoadPack<float, 4>(norms.delta + at + 4 * i);
    const Pack4 post = LoadPack<float, 4>(norms.post + 4 * i);
#pragma unroll
    for (int k = 0; k < 4; ++k) s.at[k] += delta.at[k] * delta_inverse * post.at[k];
    return s;
  };
  const auto keep = [&](const Pack4& s, int i) {
    if (write_sum && norms.sum != nullptr) StorePack(s, norms.sum + at + 4 * i);
  };

  Pack4 held[kHeld] = {};
  Pack4 weight[kHeld] = {};
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = first + j * threads;
    if (i >= packs) continue;
    held[j] = joined(i);
    weight[j] = LoadPack<float, 4>(norms.weight + 4 * i);
    squares += square(held[j]);
  }
  for (int i = first + kHeld * threads; i < packs; i += threads) squares += square(joined(i));
  const float inverse = norms.InverseRms(row_sum(squares, shared + kStreamWarps));

  const auto finish = [&](const Pack4& s, const Pack4& w, int i) {
    Pack4 normed;
#pragma unroll
    for (int k = 0; k < 4; ++k) normed.at[k] = s.at[k] * inverse * w.at[k];
    store(row, 4 * i, normed);
    // Where `sum` is `hidden`, it is written when it is read no more.
    keep(s, i);
  };
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = first + j * threads;
    if (i < packs) finish(held[j], weight[j], i);
  }
  for (int i = first + kHeld * threads; i < packs; i += threads) {
    finish(joined(i), LoadPack<float, 4>(norms.weight + 4 * i), i);
  }
}

// x[row] = norm(...) as T: what the operations one by one would have rounded it to.
template <typename T>
__device__ __forceinline__ void NormedRows(const StreamPlan& plan, const Norms& norms,
                                           float* shared, T* x) {
  NormRows(norms, plan.rows, blockIdx.x == 0, shared,
           [&](int row, int column, const Pack<float, 4>& normed) {
             StoreFloats<T, 4>(normed.at, x + row * plan.x_stride + column);
           });
  ClearPadding(plan, x);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
