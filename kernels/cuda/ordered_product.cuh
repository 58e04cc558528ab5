// Matrix products whose every output is summed in one order, however many rows there are: for
// `batch_invariant`. Tiles, copies and ends are those of tile_product.cuh.
//
// The order, of 16-bit types. The inputs go in stages of 64; stage s belongs to partial sum s % 8.
// In each, four chains take 16 inputs each: in both halves of 32 inputs, of each 8 that follow one
// another, the first four are chain 0's (2's in the second half), the others chain 1's (3's). A
// chain is a matrix instruction (m16n8k16) after the other, from zero, through the partial sum's
// stages. A partial sum is (chain 0 + chain 1) + (chain 2 + chain 3). The output is (((p0 + p1) +
// p2) + p3) +
// (((p4 + p5) + p6) + p7), each half from zero. That is what the streamed product of few rows does
// with eight warps (stream_product.cuh), and what stands in an output's way here too: so both may
// be used side by side. Of float32, stages are of 32 inputs, a partial sum is one chain of
// multiply-adds, and there is no streamed product that agrees.
//
// A block takes a tile's partial sums one after the other, or, where tiles are few, shares them
// with the other blocks of its cluster: they leave them in shared memory, and each adds up a part
// of the tile.
//
// Bytes: W once from memory (row tiles of one W tile run side by side), x once a W tile from L2.
// Grid: TileGrid, in x; clusters of `splits`. 128 threads. Shared memory: the ring, 40 to 96 KiB.
// Assumes nothing of K, N, R or alignment, as tile_product.cuh.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ordered_grid.h"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/tile_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kMostSplits = SIROCCO_HOPPER ? kOrderedParts : 1;

template <int kRows>
struct OrderedShape {
  using Tile = TileShape<kRows>;
  static constexpr int kStages = SIROCCO_HOPPER ? 6 : 4;
  static constexpr int kStageBytes = Tile::kStageBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kBlocksPerProcessor = kRows <= 32 ? 3 : 2;
  static constexpr int kDown = TileSums<kRows>::kDown;
  static constexpr int kAcross = TileSums<kRows>::kAcross;
  // Fours of sums that a thread has: of a piece of 16 outputs by 8 rows, as TileSums says.
  static constexpr int kFours = kDown * kAcross;
};

// Where chunk `chunk` of a row of a stage is: the two runs of four chunks change places in odd
// rows, so that what eight lanes read of two rows lies in different banks.
__device__ __forceinline__ int PairOffset(int row, int chunk) {
  return row * kTileDepthBytes + (chunk ^ (row % 2 * 4)) * kCopyBytes;
}

// A tile's sums, of the partial sums that this block has. Splits 1: `total` is all. Else what the
// block gives to its cluster: `total`, and with four splits the second partial sum, `other`.
template <int kRows>
struct OrderedSums {
  using Shape = OrderedShape<kRows>;
  float total[Shape::kFours][4];
  float other[Shape::kFours][4];
};

// ---- Sums ---------------------------------------------------------------------------------------

// The chains of one partial sum.
template <typename T, int kRows>
struct OrderedChains {
  static constexpr int kChains = sizeof(T) == 2 ? 4 : 1;
  using Shape = OrderedShape<kRows>;
  float at[kChains][Shape::kDown][Shape::kAcross][4];

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int c = 0; c < kChains; ++c) {
#pragma unroll
      for (int i = 0; i < Shape::kDown; ++i) {
#pragma unroll
        for (int j = 0; j < Shape::kAcross; ++j) {
#pragma unroll
          for (int e = 0; e < 4; ++e) at[c][i][j][e] = 0;
        }
      }
    }
  }

  // to += the partial sum.
  __device__ __forceinline__ void AddTo(float (&to)[Shape::kFours][4]) const {
#pragma unroll
    for (int i = 0; i < Shape::kDown; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::kAcross; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float sum = at[0][i][j][e];
          if constexpr (kChains == 4) {
            sum = (sum + at[1][i][j][e]) + (at[2][i][j][e] + at[3][i][j][e]);
          }
          to[i * Shape::kAcross + j][e] += sum;
        }
      }
    }
  }

  // One stage of both operands.
  __device__ __forceinline__ void Multiply(const unsigned char* weights, const unsigned char* x) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    if constexpr (kChains == 1) {
      MultiplyFloats(weights, x, WarpOutput<kRows>() + lane / 4, WarpRow<kRows>() + lane % 4 * 2);
    } else {
      // Chunk t + 4 is in the other run of four, whichever changed places.
      MultiplyChains(weights + PairOffset(WarpOutput<kRows>() + lane / 4, lane % 4),
                     x + PairOffset(WarpRow<kRows>() + lane / 4, lane % 4),
                     lane / 4 % 2 == 0 ? 4 * kCopyBytes : -4 * kCopyBytes);
    }
  }

 private:
  // By lane (g, t) = (lane / 4, lane % 4): `weights` and `x` are at the 16 bytes t of its row g,
  // and `across` further at those of the second half.
  __device__ __forceinline__ void MultiplyChains(const unsigned char* weights,
                                                 const unsigned char* x, int across) {
    const auto load = [](const unsigned char* at) { return *reinterpret_cast<const uint4*>(at); };
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 a[Shape::kDown][2];
#pragma unroll
      for (int i = 0; i < Shape::kDown; ++i) {
        a[i][0] = load(weights + i * 16 * kTileDepthBytes + half * across);
        a[i][1] = load(weights + (i * 16 + 8) * kTileDepthBytes + half * across);
      }
#pragma unroll
      for (int j = 0; j < Shape::kAcross; ++j) {
        const uint4 b = load(x + j * 8 * kTileDepthBytes + half * across);
#pragma unroll
        for (int i = 0; i < Shape::kDown; ++i) {
          MultiplyAccumulate<T>(at[2 * half % kChains][i][j],
                                {a[i][0].x, a[i][1].x, a[i][0].y, a[i][1].y}, {b.x, b.y});
          MultiplyAccumulate<T>(at[(2 * half + 1) % kChains][i][j],
                                {a[i][0].z, a[i][1].z, a[i][0].w, a[i][1].w}, {b.z, b.w});
        }
      }
    }
  }

  __device__ __forceinline__ void MultiplyFloats(const unsigned char* weights,
                                                 const unsigned char* x, int output, int row) {
    const auto load = [](const unsigned char* stage, int row, int chunk) {
      return LoadPack<float, 4>(reinterpret_cast<const float*>(stage + PairOffset(row, chunk)));
    };
#pragma unroll 2
    for (int chunk = 0; chunk < kCopiesAcross; ++chunk) {
      Pack<float, 4> b[Shape::kAcross][2];
#pragma unroll
      for (int j = 0; j < Shape::kAcross; ++j) {
        b[j][0] = load(x, row + j * 8, chunk);
        b[j][1] = load(x, row + j * 8 + 1, chunk);
      }
#pragma unroll
      for (int i = 0; i < Shape::kDown; ++i) {
        const Pack<float, 4> low = load(weights, output + i * 16, chunk);
        const Pack<float, 4> high = load(weights, output + i * 16 + 8, chunk);
#pragma unroll
        for (int j = 0; j < Shape::kAcross; ++j) {
          AddProducts(low, b[j][0], at[0][i][j][0]);
          AddProducts(low, b[j][1], at[0][i][j][1]);
          AddProducts(high, b[j][0], at[0][i][j][2]);
          AddProducts(high, b[j][1], at[0][i][j][3]);
        }
      }
    }
  }
};

// Goes through the stages of partial sums [part, end), of `stages` in all: each partial sum's one
// after the other.
struct StageWalk {
  int part, stage;

  __device__ __forceinline__ StageWalk(int first, int end, int stages) : part(first), stage(first) {
    Settle(end, stages);
  }
  __device__ __forceinline__ void Next(int end, int stages) {
    stage += kOrderedParts;
    Settle(end, stages);
  }

 private:
  // Partial sums without stages are zero: nothing to be added.
  __device__ __forceinline__ void Settle(int end, int stages) {
    while (part < end && stage >= stages) stage = ++part;
  }
};

// The partial sums of a block; the dependency wait is in here. On return the ring is free.
template <typename T, int kRows>
__device__ __forceinline__ void SumInOrder(const CopySource<T>& weights, const CopySource<T>& x,
                                           int inputs, int stages, int split, int splits,
                                           OrderedSums<kRows>& sums) {
  using Shape = OrderedShape<kRows>;
  using Tile = typename Shape::Tile;
  constexpr int kDepth = kTileDepthBytes / sizeof(T);
  const int each = kOrderedParts / splits;
  const int first = split * each;
  const int end = first + each;
  unsigned char* const ring = DynamicShared();
  {
    StageWalk ask(first, end, stages);
#pragma unroll
    for (int s = 0; s < Shape::kStages - 1; ++s) {
      if (ask.part >= end) break;
      CopyStage<kTileOutputs, PairOffset>(weights, ask.stage * kDepth, inputs,
                                          ring + s * Shape::kStageBytes);
      ask.Next(end, stages);
    }
  }
  WaitForDependency();
  LaunchDependents();
  StageWalk ask(first, end, stages);
#pragma unroll
  for (int s = 0; s < Shape::kStages - 1; ++s) {
    if (ask.part < end) {
      CopyStage<kRows, PairOffset>(x, ask.stage * kDepth, inputs,
                                   ring + s * Shape::kStageBytes + Tile::kWeightBytes);
      ask.Next(end, stages);
    }
    CommitCopies();  // the first group holds all the weights of before
  }
#pragma unroll
  for (int i = 0; i < Shape::kFours; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sums.total[i][e] = sums.other[i][e] = 0;
  }
  OrderedChains<T, kRows> chains;
  chains.Clear();
  int now = 0;                    // stage of the ring to multiply
  int free = Shape::kStages - 1;  // to fill
  StageWalk walk(first, end, stages);
#pragma unroll 1
  while (walk.part < end) {
    WaitForCopies<Shape::kStages - 2>();
    __syncthreads();  // all copies are there, and the stage before this one has been read
    if (ask.part < end) {
      unsigned char* const to = ring + free * Shape::kStageBytes;
      CopyStage<kTileOutputs, PairOffset>(weights, ask.stage * kDepth, inputs, to);
      CopyStage<kRows, PairOffset>(x, ask.stage * kDepth, inputs, to + Tile::kWeightBytes);
      ask.Next(end, stages);
    }
    CommitCopies();
    const unsigned char* const stage = ring + now * Shape::kStageBytes;
    chains.Multiply(stage, stage + Tile::kWeightBytes);
    if (++now == Shape::kStages) now = 0;
    if (++free == Shape::kStages) free = 0;
    const int part = walk.part;
    walk.Next(end, stages);
    if (walk.part == part) continue;
    // Into the first half, the second, or, where a cluster adds them up, apart.
    const bool second = splits == 1 ? part >= kOrderedParts / 2 : splits == 4 && part > first;
    if (second) {
      chains.AddTo(sums.other);
    } else {
      chains.AddTo(sums.total);
    }
    chains.Clear();
  }
  if (splits == 1) {
#pragma unroll
    for (int i = 0; i < Shape::kFours; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums.total[i][e] += sums.other[i][e];
    }
  }
  WaitForCopies<0>();
  __syncthreads();
}

// ---- The end ------------------------------------------------------------------------------------

// body(output, row, low, high) for one four of sums: number `four` of thread `thread`.
template <int kRows, typename Body>
__device__ __forceinline__ void EndFour(int four, int thread, const float (&sums)[4], int first_row,
                                        int rows, const Body& body) {
  using Shape = OrderedShape<kRows>;
  constexpr int kWarpsDown = kTileWarps / Shape::Tile::kWarpsAlongRows;
  const int warp = thread / kWarp;
  const int lane = thread % kWarp;
  const int output =
      warp % kWarpsDown * Shape::Tile::kWarpOutputs + four / Shape::kAcross * 16 + lane / 4;
  const int row = first_row + warp / kWarpsDown * Shape::Tile::kWarpRows +
                  four % Shape::kAcross * 8 + lane % 4 * 2;
  if (row < rows) body(output, row, sums[0], sums[2]);
  if (row + 1 < rows) body(output, row + 1, sums[1], sums[3]);
}

#if SIROCCO_HOPPER
// Adds up what the cluster's blocks have left in their rings: [planes][kFours][kTileThreads] fours.
// Each block ends its share of them.
template <int kRows, typename End>
__device__ __forceinline__ void EndOfCluster(const OrderedSums<kRows>& sums, int rank, int splits,
                                             const End& end) {
  using Shape = OrderedShape<kRows>;
  constexpr int kItems = Shape::kFours * kTileThreads;
  float4* const own = reinterpret_cast<float4*>(DynamicShared());
#pragma unroll
  for (int i = 0; i < Shape::kFours; ++i) {
    const int item = i * kTileThreads + static_cast<int>(threadIdx.x);
    own[item] = make_float4(sums.total[i][0], sums.total[i][1], sums.total[i][2], sums.total[i][3]);
    if (splits == 4) {
      own[kItems + item] =
          make_float4(sums.other[i][0], sums.other[i][1], sums.other[i][2], sums.other[i][3]);
    }
  }
  ArriveCluster();
  WaitCluster();
  // With two splits a block's sums are a half each; else partial sums, four of them a half.
  const int planes = splits == 4 ? 2 : 1;
  const int a_half = splits == 2 ? 1 : kOrderedParts / 2;
  const int share = kItems / splits;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < share; i += kTileThreads) {
    const int item = rank * share + i;
    float total[2][4] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      for (int k = 0; k < a_half; ++k) {
        const int plane = half * a_half + k;
        const float4 part = *SharedOfBlock(own + plane % planes * kItems + item, plane / planes);
        total[half][0] += part.x;
        total[half][1] += part.y;
        total[half][2] += part.z;
        total[half][3] += part.w;
      }
    }
    const float all[4] = {total[0][0] + total[1][0], total[0][1] + total[1][1],
                          total[0][2] + total[1][2], total[0][3] + total[1][3]};
    end(item / kTileThreads, item % kTileThreads, all);
  }
  // No block goes while others read what it left.
  ArriveCluster();
  WaitCluster();
}
#endif

// As that of TileSums (tile_product.cuh).
template <int kRows, typename Op, typename Body>
__device__ __forceinline__ void EndElements(const TileParams<Op>& p, const TilePlace& place,
                                            int rows, OrderedSums<kRows>& sums, const Body& body) {
  const int first_row = place.row_tile * kRows;
#if SIROCCO_HOPPER
  if (p.grid.splits > 1) {
    EndOfCluster(sums, place.split, p.grid.splits, [&](int four, int thread, const float(&all)[4]) {
      EndFour<kRows>(four, thread, all, first_row, rows, body);
    });
    return;
  }
#endif
#pragma unroll
  for (int i = 0; i < OrderedShape<kRows>::kFours; ++i) {
    EndFour<kRows>(i, static_cast<int>(threadIdx.x), sums.total[i], first_row, rows, body);
  }
}

// ---- The kernel ---------------------------------------------------------------------------------

// Work: as TileProductKernel's.
template <typename Work, int kRows>
__global__ void __launch_bounds__(kTileThreads, OrderedShape<kRows>::kBlocksPerProcessor)
    OrderedProductKernel(const __grid_constant__ TileParams<typename Work::Op> p) {
  using T = typename Work::Element;
  const Work work(p.op);
  const int splits = p.grid.splits;
  const int tile = static_cast<int>(blockIdx.x) / splits;
  const TilePlace place(tile / p.grid.row_tiles, tile % p.grid.row_tiles,
                        static_cast<int>(blockIdx.x) % splits);
  const int copied = static_cast<int>(threadIdx.x) / kCopiesAcross;
  const int inputs = work.x.width;
  OrderedSums<kRows> sums;
  SumInOrder<T>(
      work.Weights(place.output_tile, copied),
      RowsFrom<T>(work.x.data, int64_t{place.row_tile} * kRows + copied, work.rows, inputs), inputs,
      p.grid.depth_tiles, place.split, splits, sums);
  work.End(p, place, sums);
}

template <typename Work, int kRows>
cudaError_t LaunchOrderedKernel(const TileParams<typename Work::Op>& params,
                                const LaunchContext& context) {
  constexpr size_t kShared = OrderedShape<kRows>::kSharedBytes;
  const auto kernel = OrderedProductKernel<Work, kRows>;
  if (const cudaError_t error = AllowShared(kernel, kShared); error != cudaSuccess) return error;
  return LaunchClusters(kernel, dim3(static_cast<unsigned>(params.grid.blocks())),
                        dim3(kTileThreads), static_cast<unsigned>(params.grid.splits), kShared,
                        context, params);
}

// One kernel, of the tile that suits the rows; all of them where kernels are only loaded, since the
// step that follows may have fewer rows.
template <typename Work>
cudaError_t LaunchInOrder(const typename Work::Op& op, int64_t output_tiles, int64_t inputs,
                          const LaunchContext& context) {
  using T = typename Work::Element;
  constexpr DType kType = sizeof(T) == 4 ? DType::kFloat32 : DType::kBFloat16;  // for its size
  const TileParams<typename Work::Op> params{
      op, MakeOrderedGrid(kType, op.rows, output_tiles, inputs, kMostSplits), nullptr,
      context.counters};
  const int tile_rows = OrderedRowsFor(kType, op.rows);
  cudaError_t error = cudaSuccess;
  if (context.load_only || tile_rows == 16) error = LaunchOrderedKernel<Work, 16>(params, context);
  if constexpr (sizeof(T) == 2) {
    if (error == cudaSuccess && (context.load_only || tile_rows == 32)) {
      error = LaunchOrderedKernel<Work, 32>(params, context);
    }
  }
  if (error == cudaSuccess && (context.load_only || tile_rows == 64)) {
    error = LaunchOrderedKernel<Work, 64>(params, context);
  }
  return error;
}

// Of few rows the streamed product, whose sums are the same; cudaErrorNotSupported for more, for
// float32, and for what it does not take.
inline constexpr int32_t kOrderedStreamRows = 4;
template <typename Op>
cudaError_t LaunchOrderedStream(const Op& op, DType dtype, const LaunchContext& context) {
  if (op.rows > kOrderedStreamRows || dtype == DType::kFloat32) return cudaErrorNotSupported;
  return LaunchStream(op, context, {.ordered = true});
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
