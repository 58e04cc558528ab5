// A warp's sums over the columns of 16 rows of an expert's weights, in two halves of eight, by up to
// kTiles * 8 rows of activations. 16-bit types on the matrix units, which multiply exactly and add
// in float32; float32 on the plain ones.
//
// A *step* is 64 bytes of each row. In it lane (g, t) = (lane / 4, lane % 4) has the 16 bytes t of
// row g of both halves, and of activation row g of each tile. What a matrix instruction calls column
// 2t, 2t + 1, 2t + 8, 2t + 9 may be any four, as long as both operands agree.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/expert_work.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kStepChunks = 4;  // of 16 bytes

template <typename T, int kTiles, int kSteps>
class ExpertSums {
 public:
  // row(i): where activation row i begins, of one that is not there anywhere in a row that is.
  template <typename RowAt>
  __device__ __forceinline__ void Begin(int rows, const RowAt& row) {
    rows_ = rows;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      x_[n] = row(n * kExpertTileRows + static_cast<int>(threadIdx.x) % kWarp / 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums_[n][0][i] = sums_[n][1][i] = 0;
    }
  }
  // Asks for the activations of the steps from the lane's `chunk` on, of `chunks` in a row: before
  // the weights of later steps, behind which they would wait.
  __device__ __forceinline__ void Ask(int chunk, int chunks) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        if (n > 0 && n * kExpertTileRows >= rows_) break;
        const int at = chunk + s * kStepChunks;
        in_[s][n] = LoadInOrder16(reinterpret_cast<const uint4*>(x_[n]) + at, at < chunks);
      }
    }
  }
  // By the weights of these steps.
  __device__ __forceinline__ void Add(const uint4 (&weights)[kSteps][2], int, int) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const uint4(&w)[2] = weights[s];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        if (n > 0 && n * kExpertTileRows >= rows_) break;
        const uint4& in = in_[s][n];
        MultiplyAccumulate<T>(sums_[n][0], {w[0].x, w[1].x, w[0].y, w[1].y}, {in.x, in.y});
        MultiplyAccumulate<T>(sums_[n][1], {w[0].z, w[1].z, w[0].w, w[1].w}, {in.z, in.w});
      }
    }
  }
  // end(i, low, high): of activation row i the sums of row g of both halves; rows that are not
  // there too. Each lane gets two rows of a tile.
  template <typename End>
  __device__ __forceinline__ void Finish(const End& end) const {
    const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      if (n > 0 && n * kExpertTileRows >= rows_) break;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        end(n * kExpertTileRows + 2 * t + j, sums_[n][0][j] + sums_[n][1][j],
            sums_[n][0][2 + j] + sums_[n][1][2 + j]);
      }
    }
  }

 private:
  int rows_ = 0;
  const T* x_[kTiles] = {};
  uint4 in_[kSteps][kTiles] = {};
  float sums_[kTiles][2][4] = {};
};

template <int kSteps>
class ExpertSums<float, 1, kSteps> {
 public:
  template <typename RowAt>
  __device__ __forceinline__ void Begin(int rows, const RowAt& row) {
    rows_ = rows;
#pragma unroll
    for (int i = 0; i < kExpertTileRows; ++i) {
      x_[i] = row(i);
      sums_[0][i] = sums_[1][i] = 0;
    }
  }
  __device__ __forceinline__ void Ask(int /*chunk*/, int /*chunks*/) {}  // no room for them
  __device__ __forceinline__ void Add(const uint4 (&weights)[kSteps][2], int chunk, int chunks) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const float4 low = AsFloats(weights[s][0]);
      const float4 high = AsFloats(weights[s][1]);
      const int at = chunk + s * kStepChunks;
#pragma unroll
      for (int i = 0; i < kExpertTileRows; ++i) {
        if (i >= rows_) break;
        const float4 in =
            AsFloats(LoadInOrder16(reinterpret_cast<const uint4*>(x_[i]) + at, at < chunks));
        sums_[0][i] += low.x * in.x + low.y * in.y + low.z * in.z + low.w * in.w;
        sums_[1][i] += high.x * in.x + high.y * in.y + high.z * in.z + high.w * in.w;
      }
    }
  }
  template <typename End>
  __device__ __forceinline__ void Finish(const End& end) const {
    const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < kExpertTileRows; ++i) {
      if (i >= rows_) break;
      const float low = OfFour(sums_[0][i]);
      const float high = OfFour(sums_[1][i]);
      if (t == i / 2) end(i, low, high);
    }
  }

 private:
  static __device__ __forceinline__ float4 AsFloats(const uint4& x) {
    return {__uint_as_float(x.x), __uint_as_float(x.y), __uint_as_float(x.z), __uint_as_float(x.w)};
  }
  // Over the lanes of one g.
  static __device__ __forceinline__ float OfFour(float x) {
    x += __shfl_xor_sync(kAllLanes, x, 1);
    return x + __shfl_xor_sync(kAllLanes, x, 2);
  }

  int rows_ = 0;
  const float* x_[kExpertTileRows] = {};
  float sums_[2][kExpertTileRows] = {};
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
