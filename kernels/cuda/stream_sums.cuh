// A warp's sums over its share of the columns: 16 rows of weights (two halves of a tile) by up to
// eight rows of activations. 16-bit types on the matrix units, which multiply exactly and add in
// float32; float32 on the plain ones.
//
// In a block of 32 columns lane (g, t) = (lane / 4, lane % 4) holds columns 8t ... 8t + 7 of weight
// rows g of both halves and of activation row g. What a matrix instruction calls column 2t, 2t + 1,
// 2t + 8, 2t + 9 may be any four, as long as both operands agree: so 16 bytes are loaded as one.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/stream_plan.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// The sums of one warp: [activation row][16 rows of a tile].
inline constexpr int kStreamSums = kStreamRows * 2 * kStreamHalf;

// What a warp multiplies of one piece.
template <typename T>
struct StreamPiece {
  const unsigned char* slot;
  int half_bytes;  // from half to half
  int row_bytes;   // from row to row
  int rows[2];
  int columns;
  int first_column;  // a multiple of 32
  const T* x;        // the activations' first_column; [rows][x_stride] in shared memory
  int x_stride;
  int x_rows;

  // Blocks of columns go round the warps, whatever the pieces.
  __device__ __forceinline__ int FirstBlock() const {
    const int warp = threadIdx.x / kWarp;
    return (warp + kStreamWarps - first_column / kStreamColumnBlock % kStreamWarps) % kStreamWarps;
  }
};

template <typename T>
class StreamSums {
 public:
  __device__ __forceinline__ void Add(const StreamPiece<T>& piece) {
    const int t = threadIdx.x % 4;
    const int full = piece.columns / kStreamColumnBlock;
    int block = piece.FirstBlock();
#pragma unroll 1
    for (; block + kStreamWarps < full; block += 2 * kStreamWarps) AddBlocks<2>(piece, block);
    if (block < full) {
      AddBlocks<1>(piece, block);
      block += kStreamWarps;
    }
    // The last columns are less than a block: lanes beyond them have zeros.
    if (block != full || piece.columns % kStreamColumnBlock == 0) return;
    AddBlocks<1>(piece, block, block * kStreamColumnBlock + 8 * t < piece.columns);
  }

  // to: [kStreamSums]
  __device__ __forceinline__ void Store(int x_rows, float* to) const {
    const int g = threadIdx.x % kWarp / 4;
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int x_row = 2 * t + i % 2;
      const int row = i / 2 * kStreamHalf + g;
      const float sum = (sums_[0][i] + sums_[1][i]) + (sums_[2][i] + sums_[3][i]);
      if (x_row < x_rows) to[x_row * 2 * kStreamHalf + row] = sum;
    }
  }

 private:
  // kCount blocks of the warp's: all loads before all products. Lanes of rows that are not there
  // load nothing.
  template <int kCount>
  __device__ __forceinline__ void AddBlocks(const StreamPiece<T>& piece, int first,
                                            bool has_column = true) {
    const int g = threadIdx.x % kWarp / 4;
    const int column = first * kStreamColumnBlock + 8 * (threadIdx.x % 4);
    const T* weights = reinterpret_cast<const T*>(piece.slot + g * piece.row_bytes) + column;
    const T* second = weights + piece.half_bytes / sizeof(T);
    const T* x = piece.x + g * piece.x_stride + column;
    uint4 w0[kCount] = {}, w1[kCount] = {}, in[kCount] = {};
    if (has_column && g < piece.rows[0]) Load(weights, w0);
    if (has_column && g < piece.rows[1]) Load(second, w1);
    if (g < piece.x_rows) Load(x, in);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      float(&low)[4] = sums_[i % 2 * 2];
      float(&high)[4] = sums_[i % 2 * 2 + 1];
      MultiplyAccumulate<T>(low, {w0[i].x, w1[i].x, w0[i].y, w1[i].y}, {in[i].x, in[i].y});
      MultiplyAccumulate<T>(high, {w0[i].z, w1[i].z, w0[i].w, w1[i].w}, {in[i].z, in[i].w});
    }
  }

  template <int kCount>
  __device__ __forceinline__ static void Load(const T* from, uint4 (&to)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      to[i] = *reinterpret_cast<const uint4*>(from + i * kStreamWarps * kStreamColumnBlock);
    }
  }

  float sums_[4][4] = {};
};

template <>
class StreamSums<float> {
 public:
  __device__ __forceinline__ void Add(const StreamPiece<float>& piece) {
    const int g = threadIdx.x % kWarp / 4;
    const int t = threadIdx.x % 4;
    const unsigned char* row = piece.slot + g * piece.row_bytes;
    for (int block = piece.FirstBlock(); block * kStreamColumnBlock < piece.columns;
         block += kStreamWarps) {
      const int column = block * kStreamColumnBlock + 8 * t;
      if (column >= piece.columns) continue;
      const float* at = reinterpret_cast<const float*>(row) + column;
      Pack<float, 4> w[2][2] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (g >= piece.rows[half]) continue;
        w[half][0] = LoadPack<float, 4>(at + half * piece.half_bytes / sizeof(float));
        w[half][1] = LoadPack<float, 4>(at + half * piece.half_bytes / sizeof(float) + 4);
      }
#pragma unroll
      for (int r = 0; r < kStreamRows; ++r) {
        if (r >= piece.x_rows) break;
        const float* x = piece.x + r * piece.x_stride + column;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          sums_[0][r] += w[0][i / 4].at[i % 4] * x[i];
          sums_[1][r] += w[1][i / 4].at[i % 4] * x[i];
        }
      }
    }
  }

  __device__ __forceinline__ void Store(int x_rows, float* to) const {
    const int g = threadIdx.x % kWarp / 4;
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < kStreamRows; ++r) {
      if (r >= x_rows) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = sums_[half][r];
        sum += __shfl_xor_sync(kAllLanes, sum, 1);
        sum += __shfl_xor_sync(kAllLanes, sum, 2);
        if (t == r % 4) to[(r * 2 + half) * kStreamHalf + g] = sum;
      }
    }
  }

 private:
  float sums_[2][kStreamRows] = {};
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
