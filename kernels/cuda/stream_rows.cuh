// The activations of a streamed product in shared memory, as T: rows that are ready, or the norm of
// the residual stream, which every block computes for itself.
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
      plan.groups * (kStreamGroupBytes / static_cast<int>(sizeof(T))) - plan.columns;
  for (int i = threadIdx.x; i < plan.rows * padding; i += kStreamThreads) {
    x[i / padding * plan.x_stride + plan.columns + i % padding] = FromFloat<T>(0.0f);
  }
}

// x[row] = in[row], 16 bytes at a time.
template <typename T>
__device__ __forceinline__ void CopyRows(const StreamPlan& plan, const T* in, T* x) {
  constexpr int kChunk = 16 / sizeof(T);
  const int chunks = plan.columns / kChunk;
  // Of chunk i, and how they change from a thread's chunk to its next: one division for all.
  const int step_rows = kStreamThreads / chunks;
  const int step_chunks = kStreamThreads - step_rows * chunks;
  int row = static_cast<int>(threadIdx.x) / chunks;
  int chunk = static_cast<int>(threadIdx.x) - row * chunks;
#pragma unroll 4
  for (int i = threadIdx.x; i < plan.rows * chunks; i += kStreamThreads) {
    StorePack(LoadPack<T, kChunk>(in + int64_t{i} * kChunk),
              x + row * plan.x_stride + chunk * kChunk);
    row += step_rows;
    chunk += step_chunks;
    if (chunk >= chunks) {
      chunk -= chunks;
      ++row;
    }
  }
  ClearPadding(plan, x);
}

// How the warps share the norms of up to kStreamRows rows: each row by 8, 4, 2 or 1 of the warps.
struct NormShare {
  int warps;  // a row
  int row;    // this thread's; >= the number of rows: none
  int first;  // its first pack of four elements; then every threads-th
  int threads;

  __device__ explicit NormShare(int rows)
      : warps(rows == 1   ? 8
              : rows == 2 ? 4
              : rows <= 4 ? 2
                          : 1),
        row(static_cast<int>(threadIdx.x) / kWarp / warps),
        first(static_cast<int>(threadIdx.x) % (warps * kWarp)),
        threads(warps * kWarp) {}
};

// Packs of a thread that stay in registers; with four the rest spills, which cost more than reading
// the widest rows' last ones again.
inline constexpr int kNormHeld = 3;

// Asks for what the norms read of the layer, before WaitForDependency: no kernel writes it, and it
// comes from memory, not from a cache.
__device__ __forceinline__ void PrefetchNorms(const Norms& norms) {
  if (norms.weight != nullptr) PrefetchFloats<kStreamThreads>(norms.weight, norms.width);
  if (norms.post != nullptr) PrefetchFloats<kStreamThreads>(norms.post, norms.width);
}

// The norms of up to kStreamRows rows at once. Ends every four elements by store(row, column,
// pack). `shared`: [2 * kStreamWarps] floats. `write_sum`: also writes norms.sum.
template <typename Store>
__device__ __forceinline__ void NormRows(const Norms& norms, int rows, bool write_sum,
                                         float* shared, const Store& store) {
  using Pack4 = Pack<float, 4>;
  const NormShare share(rows);
  const int warp = threadIdx.x / kWarp;
  const int packs = share.row < rows ? norms.width / 4 : 0;
  const int64_t at = int64_t{share.row} * norms.width;
  const bool joins = norms.post != nullptr;
  const bool scales = norms.weight != nullptr;

  const auto row_sum = [&](float value, float* partial) {
    value = WarpSum(value);
    if (threadIdx.x % kWarp == 0) partial[warp] = value;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < share.warps; ++i) {
      sum += partial[min(share.row * share.warps + i, kStreamWarps - 1)];
    }
    return sum;
  };
  const auto square = [](const Pack4& pack) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) squares += pack.at[i] * pack.at[i];
    return squares;
  };
  const auto join = [](Pack4& s, const Pack4& delta, const Pack4& post, float inverse) {
#pragma unroll
    for (int k = 0; k < 4; ++k) s.at[k] += delta.at[k] * inverse * post.at[k];
  };
  const auto hidden = [&](int i) { return LoadPack<float, 4>(norms.hidden + at + 4 * i); };
  const auto delta = [&](int i) { return LoadPack<float, 4>(norms.delta + at + 4 * i); };
  const auto post = [&](int i) { return LoadPack<float, 4>(norms.post + 4 * i); };
  const auto weight = [&](int i) {
    return scales ? LoadPack<float, 4>(norms.weight + 4 * i) : Pack4{{1, 1, 1, 1}};
  };

  // All loads of the held packs wait together.
  Pack4 held[kNormHeld] = {};
  Pack4 deltas[kNormHeld] = {};
  Pack4 posts[kNormHeld];
  Pack4 weights[kNormHeld];
#pragma unroll
  for (int j = 0; j < kNormHeld; ++j) {
    const int i = share.first + j * share.threads;
    if (i >= packs) continue;
    held[j] = hidden(i);
    weights[j] = weight(i);
    if (!joins) continue;
    deltas[j] = delta(i);
    posts[j] = post(i);
  }
  const int rest = share.first + kNormHeld * share.threads;  // the first pack that is not held
  float delta_inverse = 0;
  if (joins) {
    float squares = 0;
#pragma unroll
    for (int j = 0; j < kNormHeld; ++j) squares += square(deltas[j]);
#pragma unroll 1
    for (int i = rest; i < packs; i += share.threads) squares += square(delta(i));
    delta_inverse = norms.InverseRms(row_sum(squares, shared));
  }
  const auto joined = [&](int i) {
    Pack4 s = hidden(i);
    if (joins) join(s, delta(i), post(i), delta_inverse);
    return s;
  };

  float squares = 0;
#pragma unroll
  for (int j = 0; j < kNormHeld; ++j) {
    if (share.first + j * share.threads >= packs) continue;
    if (joins) join(held[j], deltas[j], posts[j], delta_inverse);
    squares += square(held[j]);
  }
#pragma unroll 1
  for (int i = rest; i < packs; i += share.threads) squares += square(joined(i));
  const float rms = norms.InverseRms(row_sum(squares, shared + kStreamWarps));
  const float inverse = scales ? rms : 1.0f;

  const auto finish = [&](const Pack4& s, const Pack4& w, int i) {
    Pack4 normed;
#pragma unroll
    for (int k = 0; k < 4; ++k) normed.at[k] = s.at[k] * inverse * w.at[k];
    store(share.row, 4 * i, normed);
    // Where `sum` is `hidden`, it is written when it is read no more.
    if (write_sum && norms.sum != nullptr) StorePack(s, norms.sum + at + 4 * i);
  };
#pragma unroll
  for (int j = 0; j < kNormHeld; ++j) {
    const int i = share.first + j * share.threads;
    if (i < packs) finish(held[j], weights[j], i);
  }
#pragma unroll 1
  for (int i = rest; i < packs; i += share.threads) {
    finish(joined(i), weight(i), i);
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
