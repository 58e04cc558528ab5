// Matrix products by tiles, for any number of rows: out[R, N] = x[R, K] * W[N, K]^T with an
// operation's own end (epilogue.cuh). The weights are the M side of the matrix units, so that few
// rows waste little of them.
//
// A block owns 64 weight rows and kRows rows of x and goes through its part of K in stages of 128
// bytes a row, which asynchronous copies bring to a ring in shared memory. The ring's weights are
// asked for before the dependency wait. Where tiles are fewer than the machine has room for, K is
// split: the splits leave float32 partial sums in scratch, and the last block of a tile to arrive
// adds them up in order and goes on to the end.
//
// Bytes: W once from memory (row tiles of one W tile run side by side), x once a W tile from L2.
// Grid: TileGrid, in x. 128 threads. Shared memory: the ring, 40 to 72 KiB.
// Assumes nothing of K, N, R or alignment; where K is no multiple of 16 bytes, or a matrix is not
// aligned to that, its copies are made element by element. x and W have type T.
#pragma once

#include <cstdint>

#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tile_grid.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kTileThreads = 128;
inline constexpr int kTileWarps = kTileThreads / kWarp;
inline constexpr int kCopyBytes = 16;
inline constexpr int kCopiesAcross = kTileDepthBytes / kCopyBytes;  // a row of a stage
inline constexpr int kCopyRows = kTileThreads / kCopiesAcross;      // rows copied at once

template <int kRows>
struct TileShape {
  static constexpr int kStages = kRows <= 64 ? 4 : 3;
  static constexpr int kWeightBytes = kTileOutputs * kTileDepthBytes;
  static constexpr int kStageBytes = kWeightBytes + kRows * kTileDepthBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kBlocksPerProcessor = kRows <= 32 ? 4 : kRows <= 64 ? 3 : 2;
  // Warps of the tile: so many along its rows, the others along its outputs.
  static constexpr int kWarpsAlongRows = kRows >= 64 ? 2 : 1;
  static constexpr int kWarpOutputs = kTileOutputs * kWarpsAlongRows / kTileWarps;
  static constexpr int kWarpRows = kRows / kWarpsAlongRows;
};

// A warp's sums, in pieces of 16 outputs by 8 rows as the matrix units have them: lane l has, of
// outputs l / 4 and l / 4 + 8, rows l % 4 * 2 and the one after: [0], [1] of the first output, [2],
// [3] of the second.
template <int kRows>
struct TileSums {
  static constexpr int kDown = TileShape<kRows>::kWarpOutputs / 16;
  static constexpr int kAcross = TileShape<kRows>::kWarpRows / 8;
  static constexpr int kCount = kDown * kAcross * 4;
  float at[kDown][kAcross][4];
};

// First output and row of this thread's warp in the tile.
template <int kRows>
__device__ __forceinline__ int WarpOutput() {
  constexpr int kDown = kTileWarps / TileShape<kRows>::kWarpsAlongRows;
  return threadIdx.x / kWarp % kDown * TileShape<kRows>::kWarpOutputs;
}
template <int kRows>
__device__ __forceinline__ int WarpRow() {
  constexpr int kDown = kTileWarps / TileShape<kRows>::kWarpsAlongRows;
  return threadIdx.x / kWarp / kDown * TileShape<kRows>::kWarpRows;
}

// body(output, row, low, high): places in the tile, sums of `output` and of `output` + 8.
template <int kRows, typename Body>
__device__ __forceinline__ void ForEachPair(const TileSums<kRows>& sums, const Body& body) {
  const int output = WarpOutput<kRows>() + threadIdx.x % kWarp / 4;
  const int row = WarpRow<kRows>() + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < sums.kDown; ++i) {
#pragma unroll
    for (int j = 0; j < sums.kAcross; ++j) {
      body(output + i * 16, row + j * 8, sums.at[i][j][0], sums.at[i][j][2]);
      body(output + i * 16, row + j * 8 + 1, sums.at[i][j][1], sums.at[i][j][3]);
    }
  }
}

// ---- Copies -------------------------------------------------------------------------------------

// The rows of a tile that one thread copies from: row threadIdx.x / 8 of the tile and every 16th
// after it.
template <typename T>
struct CopySource {
  const T* first;  // [K]
  int64_t step;    // elements to the next of them
  int count;       // of them that exist; the others are zeros
  bool aligned;    // all of the matrix can be copied by 16 bytes
};

// Rows `row`, row + kStep, row + 2 * kStep ... of a plain matrix. `rows` and `inputs`: of the
// matrix.
template <typename T, int kStep = kCopyRows>
__device__ __forceinline__ CopySource<T> RowsFrom(const void* data, int64_t row, int64_t rows,
                                                  int inputs) {
  const T* matrix = static_cast<const T*>(data);
  const int count = row >= rows ? 0 : static_cast<int>(CeilDiv(rows - row, kStep));
  return {count > 0 ? matrix + row * inputs : matrix, int64_t{kStep} * inputs, count,
          IsAligned(data, kCopyBytes) && inputs % (kCopyBytes / static_cast<int>(sizeof(T))) == 0};
}

// Chunk `chunk` of a row of a stage, moved so that the eight rows that are read at once by the
// matrix units, or by a quarter of a warp, lie in different banks.
__device__ __forceinline__ int ChunkOffset(int row, int chunk) {
  return row * kTileDepthBytes + (chunk ^ (row % kCopiesAcross)) * kCopyBytes;
}

// Elements [k, k + depth) of kTileRows rows into one stage, each chunk to OffsetOf(row, chunk).
template <int kTileRows, int (*OffsetOf)(int, int) = ChunkOffset, typename T>
__device__ __forceinline__ void CopyStage(const CopySource<T>& source, int k, int inputs,
                                          unsigned char* stage) {
  constexpr int kElements = kCopyBytes / sizeof(T);
  const int chunk = threadIdx.x % kCopiesAcross;
  const int at = k + chunk * kElements;
  unsigned char* to = stage + OffsetOf(static_cast<int>(threadIdx.x) / kCopiesAcross, chunk);
#pragma unroll
  for (int i = 0; i < kTileRows / kCopyRows; ++i) {
    const bool valid = i < source.count && at < inputs;
    const T* from = valid ? source.first + i * source.step + at : source.first;
    if (source.aligned) {
      CopyAsync16(to, from, valid);
    } else {
      Pack<T, kElements> pack;
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        pack.at[e] = valid && at + e < inputs ? from[e] : FromFloat<T>(0.0f);
      }
      StorePack(pack, reinterpret_cast<T*>(to));
    }
    to += kCopyRows * kTileDepthBytes;
  }
}

// ---- Sums ---------------------------------------------------------------------------------------

// sums += weights * x of one stage, on the matrix units.
template <typename T, int kRows>
__device__ __forceinline__ void MultiplyStage(const unsigned char* weights, const unsigned char* x,
                                              TileSums<kRows>& sums) {
  static_assert(sizeof(T) == 2);
  const int lane = threadIdx.x % kWarp;
  // LoadMatrix4: lane l addresses row l % 8 of matrix l / 8. Of the weights: both halves of 16
  // outputs, then the next 8 inputs; of x: 8 rows, the next 8 inputs, then 8 more rows.
  const int output = WarpOutput<kRows>() + lane % 16;
  const int row = WarpRow<kRows>() + lane / 16 * 8 + lane % 8;
#pragma unroll
  for (int k = 0; k < kCopiesAcross; k += 2) {
    uint32_t a[sums.kDown][4];
#pragma unroll
    for (int i = 0; i < sums.kDown; ++i) {
      LoadMatrix4(a[i], weights + ChunkOffset(output + i * 16, k + lane / 16));
    }
#pragma unroll
    for (int j = 0; j < sums.kAcross; j += 2) {
      uint32_t b[4];
      LoadMatrix4(b, x + ChunkOffset(row + j * 8, k + lane / 8 % 2));
      const uint32_t b0[2] = {b[0], b[1]};
      const uint32_t b1[2] = {b[2], b[3]};
#pragma unroll
      for (int i = 0; i < sums.kDown; ++i) {
        MultiplyAccumulate<T>(sums.at[i][j], a[i], b0);
        MultiplyAccumulate<T>(sums.at[i][j + 1], a[i], b1);
      }
    }
  }
}

__device__ __forceinline__ void AddProducts(const Pack<float, 4>& a, const Pack<float, 4>& b,
                                            float& sum) {
#pragma unroll
  for (int e = 0; e < 4; ++e) sum = fmaf(a.at[e], b.at[e], sum);
}

// The same in float32, with the sums in the same places.
template <int kRows>
__device__ __forceinline__ void MultiplyFloatStage(const unsigned char* weights,
                                                   const unsigned char* x, TileSums<kRows>& sums) {
  const int lane = threadIdx.x % kWarp;
  const int output = WarpOutput<kRows>() + lane / 4;
  const int row = WarpRow<kRows>() + lane % 4 * 2;
  const auto load = [](const unsigned char* stage, int row, int chunk) {
    return LoadPack<float, 4>(reinterpret_cast<const float*>(stage + ChunkOffset(row, chunk)));
  };
#pragma unroll 2
  for (int chunk = 0; chunk < kCopiesAcross; ++chunk) {
    Pack<float, 4> b[sums.kAcross][2];
#pragma unroll
    for (int j = 0; j < sums.kAcross; ++j) {
      b[j][0] = load(x, row + j * 8, chunk);
      b[j][1] = load(x, row + j * 8 + 1, chunk);
    }
#pragma unroll
    for (int i = 0; i < sums.kDown; ++i) {
      const Pack<float, 4> low = load(weights, output + i * 16, chunk);
      const Pack<float, 4> high = load(weights, output + i * 16 + 8, chunk);
#pragma unroll
      for (int j = 0; j < sums.kAcross; ++j) {
        AddProducts(low, b[j][0], sums.at[i][j][0]);
        AddProducts(low, b[j][1], sums.at[i][j][1]);
        AddProducts(high, b[j][0], sums.at[i][j][2]);
        AddProducts(high, b[j][1], sums.at[i][j][3]);
      }
    }
  }
}

// The sums of depth tiles [first, last) of K; the dependency wait is in here. On return the ring is
// free, but other warps may still read it.
template <typename T, int kRows>
__device__ __forceinline__ void MultiplyTile(const CopySource<T>& weights, const CopySource<T>& x,
                                             int inputs, int first, int last,
                                             TileSums<kRows>& sums) {
  using Shape = TileShape<kRows>;
  constexpr int kDepth = kTileDepthBytes / sizeof(T);
  unsigned char* ring = DynamicShared();
#pragma unroll
  for (int s = 0; s < Shape::kStages - 1; ++s) {
    if (first + s >= last) break;
    CopyStage<kTileOutputs>(weights, (first + s) * kDepth, inputs, ring + s * Shape::kStageBytes);
  }
  WaitForDependency();
  LaunchDependents();
#pragma unroll
  for (int s = 0; s < Shape::kStages - 1; ++s) {
    if (first + s < last) {
      CopyStage<kRows>(x, (first + s) * kDepth, inputs,
                       ring + s * Shape::kStageBytes + Shape::kWeightBytes);
    }
    CommitCopies();  // the first group holds all the weights of before
  }
#pragma unroll
  for (int i = 0; i < sums.kDown; ++i) {
#pragma unroll
    for (int j = 0; j < sums.kAcross; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums.at[i][j][e] = 0;
    }
  }
  int now = 0;                    // stage to multiply
  int free = Shape::kStages - 1;  // stage to fill
#pragma unroll 1
  for (int k = first; k < last; ++k) {
    WaitForCopies<Shape::kStages - 2>();
    __syncthreads();  // all copies are there, and the stage before this one has been read
    const int next = k + Shape::kStages - 1;
    if (next < last) {
      unsigned char* to = ring + free * Shape::kStageBytes;
      CopyStage<kTileOutputs>(weights, next * kDepth, inputs, to);
      CopyStage<kRows>(x, next * kDepth, inputs, to + Shape::kWeightBytes);
    }
    CommitCopies();
    const unsigned char* stage = ring + now * Shape::kStageBytes;
    if constexpr (sizeof(T) == 2) {
      MultiplyStage<T>(stage, stage + Shape::kWeightBytes, sums);
    } else {
      MultiplyFloatStage(stage, stage + Shape::kWeightBytes, sums);
    }
    if (++now == Shape::kStages) now = 0;
    if (++free == Shape::kStages) free = 0;
  }
  WaitForCopies<0>();
}

// Makes complete sums of the splits' partial ones: true for the last block of the tile to arrive,
// which has them then. partials: [tiles][splits][TileSums::kCount][kTileThreads].
template <int kRows>
__device__ __forceinline__ bool GatherSplits(int tile, int split, int splits, float* partials,
                                             uint32_t* counters, TileSums<kRows>& sums) {
  if (splits == 1) return true;
  constexpr int64_t kSplit = int64_t{TileSums<kRows>::kCount} * kTileThreads;
  float* own = partials + tile * splits * kSplit + threadIdx.x;
  float* flat = &sums.at[0][0][0];
#pragma unroll
  for (int i = 0; i < sums.kCount; ++i) own[split * kSplit + i * kTileThreads] = flat[i];
  if (!LastToArrive(&counters[tile], splits)) return false;
#pragma unroll
  for (int i = 0; i < sums.kCount; ++i) flat[i] = own[i * kTileThreads];
  for (int s = 1; s < splits; ++s) {
#pragma unroll
    for (int i = 0; i < sums.kCount; ++i) flat[i] += own[s * kSplit + i * kTileThreads];
  }
  return true;
}

// ---- The kernel ---------------------------------------------------------------------------------

template <typename Op>
struct TileParams {
  Op op;
  TileGrid grid;
  float* partials;     // scratch
  uint32_t* counters;  // [kCounters]
};

// What a block works on.
struct TilePlace {
  int output_tile, row_tile, split;

  __device__ explicit TilePlace(const TileGrid& grid) {
    const int tile = blockIdx.x / grid.row_tiles;
    row_tile = blockIdx.x % grid.row_tiles;
    output_tile = tile / grid.splits;
    split = tile % grid.splits;
  }
  __device__ TilePlace(int output_tile, int row_tile, int split)
      : output_tile(output_tile), row_tile(row_tile), split(split) {}
};

// Work: an operation on a tile. It has
//   using Op, Element;
//   Work(const Op&)                        may read the layer's table, before the dependency wait
//   rows, x (Rows)                         the product's input
//   Weights(output_tile, i)                CopySource of the tile's weight rows i, i + 16, ...
//   End(const TileParams<Op>&, const TilePlace&, Sums&)    by all threads; Sums: TileSums, or
//                                          OrderedSums (ordered_product.cuh)
template <typename Work, int kRows>
__global__ void __launch_bounds__(kTileThreads, TileShape<kRows>::kBlocksPerProcessor)
    TileProductKernel(const __grid_constant__ TileParams<typename Work::Op> p) {
  using T = typename Work::Element;
  const Work work(p.op);
  const TilePlace place(p.grid);
  const int copied = threadIdx.x / kCopiesAcross;
  const int inputs = work.x.width;
  TileSums<kRows> sums;
  MultiplyTile<T>(
      work.Weights(place.output_tile, copied),
      RowsFrom<T>(work.x.data, int64_t{place.row_tile} * kRows + copied, work.rows, inputs), inputs,
      static_cast<int>(int64_t{p.grid.depth_tiles} * place.split / p.grid.splits),
      static_cast<int>(int64_t{p.grid.depth_tiles} * (place.split + 1) / p.grid.splits), sums);
  work.End(p, place, sums);
}

// End of a work whose elements need nothing of each other: body(output, row, low, high) for rows of
// the operation, `output` being a place in the tile.
template <int kRows, typename Op, typename Body>
__device__ __forceinline__ void EndElements(const TileParams<Op>& p, const TilePlace& place,
                                            int rows, TileSums<kRows>& sums, const Body& body) {
  const int tile = place.output_tile * p.grid.row_tiles + place.row_tile;
  if (!GatherSplits(tile, place.split, p.grid.splits, p.partials, p.counters, sums)) return;
  const int first_row = place.row_tile * kRows;
  ForEachPair(sums, [&](int output, int row, float low, float high) {
    if (first_row + row < rows) body(output, first_row + row, low, high);
  });
}

template <typename Work, int kRows>
cudaError_t LaunchTileKernel(const TileParams<typename Work::Op>& params,
                             const LaunchContext& context) {
  constexpr size_t kShared = TileShape<kRows>::kSharedBytes;
  const auto kernel = TileProductKernel<Work, kRows>;
  if (const cudaError_t error = AllowShared(kernel, kShared); error != cudaSuccess) return error;
  return LaunchKernel(kernel, dim3(static_cast<unsigned>(params.grid.blocks())), dim3(kTileThreads),
                      kShared, context, params);
}

// One kernel, of the tile that suits the rows.
template <typename Work>
cudaError_t LaunchTiles(const typename Work::Op& op, const TileGrid& grid,
                        const LaunchContext& context) {
  const TileParams<typename Work::Op> params{op, grid, static_cast<float*>(context.scratch),
                                             context.counters};
  if constexpr (sizeof(typename Work::Element) == 4) {
    return TileRowsFor(DType::kFloat32, op.rows) == 16
               ? LaunchTileKernel<Work, 16>(params, context)
               : LaunchTileKernel<Work, 64>(params, context);
  } else {
    switch (TileRowsFor(DType::kBFloat16, op.rows)) {
      case 16:
        return LaunchTileKernel<Work, 16>(params, context);
      case 32:
        return LaunchTileKernel<Work, 32>(params, context);
      case 64:
        return LaunchTileKernel<Work, 64>(params, context);
    }
    return LaunchTileKernel<Work, 128>(params, context);
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
