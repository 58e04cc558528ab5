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
// kOrdered: a row's squares are summed as RowNorm's 256 threads do it (norm_rows.cuh), whose eight
// warps' parts the fewer warps keep apart: the same bits with any number of rows. (A step of
// gemma3-1b with four rows took 5% longer for it on an H100.)
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

// Floats of shared memory that the norms need: of two sums a part of each warp, or, where the
// warps' parts are kept apart, eight a row.
template <bool kOrdered>
inline constexpr int kNormSums = 2 * kStreamWarps*(kOrdered ? kStreamRows : 1);

// The norms of up to kStreamRows rows at once. Ends every four elements by store(row, column,
// pack). `shared`: [kNormSums<kOrdered>] floats. `write_sum`: also writes norms.sum.
template <bool kOrdered, typename Store>
__device__ __forceinline__ void NormRows(const Norms& norms, int rows, bool write_sum,
                                         float* shared, const Store& store) {
  using Pack4 = Pack<float, 4>;
  const NormShare share(rows);
  const int packs = share.row < rows ? norms.width / 4 : 0;
  const int64_t at = int64_t{share.row} * norms.width;
  const bool joins = norms.post != nullptr;
  const bool scales = norms.weight != nullptr;

  // Of the row's squares, which are of_held(j) in the held packs and of_rest(i) in the others.
  const auto row_sum = [&](float* partial, const auto& of_held, const auto& of_rest) {
    if constexpr (kOrdered) {
      // A thread's pack j is of part j % apart of those that it keeps.
      float* const parts = partial + min(share.row, kStreamRows - 1) * kStreamWarps;
      const int row_warp = share.first / kWarp;      // among the row's
      const int apart = kStreamWarps / share.warps;  // parts that each of them keeps
#pragma unroll 1
      for (int part = 0; part < apart; ++part) {
        float squares = 0;
#pragma unroll
        for (int j = 0; j < kNormHeld; ++j) {
          if ((j & (apart - 1)) == part) squares += of_held(j);
        }
        const int next = (kNormHeld + apart - 1 - part) / apart * apart + part;  // not held
#pragma unroll 1
        for (int i = share.first + next * share.threads; i < packs; i += kStreamThreads) {
          squares += of_rest(i);
        }
        squares = WarpSum(squares);
        if (threadIdx.x % kWarp == 0 && share.row < rows) {
          parts[row_warp + part * share.warps] = squares;
        }
      }
      __syncthreads();
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kStreamWarps; ++i) sum += parts[i];
      return sum;
    } else {
      float squares = 0;
#pragma unroll
      for (int j = 0; j < kNormHeld; ++j) squares += of_held(j);
#pragma unroll 1
      for (int i = share.first + kNormHeld * share.threads; i < packs; i += share.threads) {
        squares += of_rest(i);
      }
      squares = WarpSum(squares);
      if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = squares;
      __syncthreads();
      float sum = 0;
      for (int i = 0; i < share.warps; ++i) {
        sum += partial[min(share.row * share.warps + i, kStreamWarps - 1)];
      }
      return sum;
    }
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
    delta_inverse = norms.InverseRms(row_sum(
        shared, [&](int j) { return SumOfSquares(deltas[j]); },
        [&](int i) { return SumOfSquares(delta(i)); }));
  }
  const auto joined = [&](int i) {
    Pack4 s = hidden(i);
    if (joins) JoinNormed(s, delta(i), post(i), delta_inverse);
    return s;
  };

#pragma unroll
  for (int j = 0; j < kNormHeld; ++j) {
    if (share.first + j * share.threads >= packs) continue;
    if (joins) JoinNormed(held[j], deltas[j], posts[j], delta_inverse);
  }
  const float rms = norms.InverseRms(row_sum(
      shared + kNormSums<kOrdered> / 2, [&](int j) { return SumOfSquares(held[j]); },
      [&](int i) { return SumOfSquares(joined(i)); }));
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
template <bool kOrdered, typename T>
__device__ __forceinline__ void NormedRows(const StreamPlan& plan, const Norms& norms,
                                           float* shared, T* x) {
  NormRows<kOrdered>(norms, plan.rows, blockIdx.x == 0, shared,
                     [&](int row, int column, const Pack<float, 4>& normed) {
                       StoreFloats<T, 4>(normed.at, x + row * plan.x_stride + column);
                     });
  ClearPadding(plan, x);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
