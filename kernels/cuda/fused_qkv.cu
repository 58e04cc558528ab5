// q, k and v, with or without the norms before: few rows as a stream; else the norms and one
// product over all heads by tiles, whose end needs whole heads. A tile is 64 outputs of one head,
// or its last, narrower part. Where a head is one tile that is not split, its rows go through
// shared memory; else the blocks of a head leave their sums in scratch, and the last of them to
// arrive ends the head.
//
// Scratch: [row tiles][heads][splits][rows of a tile][head_dim] float32. Many rows go in chunks, to
// keep it small.
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/tile_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int32_t kChunkRows = 2048;

__host__ __device__ int HeadTiles(const LayerRef& layer) {
  return static_cast<int>(CeilDiv(layer.head_dim, kTileOutputs));
}
__host__ __device__ int Heads(const LayerRef& layer) {
  return (layer.q_rows + 2 * layer.kv_rows) / layer.head_dim;
}

template <typename T>
struct QkvWork {
  using Op = QkvParams;
  using Element = T;
  // Of a row in shared memory: threads that store at once meet different banks.
  static constexpr int kPitch = kTileOutputs + 4;

  const LayerRef& ref;
  const LayerParams& layer;
  const Rows& x;
  int rows;
  QkvEnd<T> end;

  __device__ explicit QkvWork(const QkvParams& p)
      : ref(p.layer), layer(LayerOf(p.layer)), x(p.normed), rows(p.rows), end(p, layer) {}

  __device__ __forceinline__ CopySource<T> Weights(int output_tile, int i) const {
    const int tiles = HeadTiles(ref);
    const HeadPlace head(ref, output_tile / tiles);
    const int64_t first = int64_t{head.own} * ref.head_dim;
    return RowsFrom<T>(head.Weight(layer).data, first + output_tile % tiles * kTileOutputs + i,
                       first + ref.head_dim, x.width);
  }

  template <int kRows>
  __device__ __forceinline__ void End(const TileParams<Op>& p, const TilePlace& place,
                                      TileSums<kRows>& sums) const {
    const int tiles = HeadTiles(ref);
    const int head = place.output_tile / tiles;
    const int first = place.output_tile % tiles * kTileOutputs;  // output of the head
    const int splits = p.grid.splits;
    const int first_row = place.row_tile * kRows;
    const int count = min(kRows, rows - first_row);
    const bool shared = tiles * splits == 1;
    const int pitch = shared ? kPitch : ref.head_dim;
    const int64_t split_size = int64_t{kRows} * ref.head_dim;
    const int group = place.row_tile * Heads(ref) + head;
    // [kRows][pitch] of the first split
    float* const heads = shared ? reinterpret_cast<float*>(DynamicShared())
                                : p.partials + group * splits * split_size;
    __syncthreads();  // the ring has been read
    float* const own = heads + place.split * split_size;
    ForEachPair(sums, [&](int output, int row, float low, float high) {
      if (row >= count) return;
      if (first + output < ref.head_dim) own[row * pitch + first + output] = low;
      if (first + output + 8 < ref.head_dim) own[row * pitch + first + output + 8] = high;
    });
    if (shared) {
      __syncthreads();
    } else if (!LastToArrive(&p.counters[group], tiles * splits)) {
      return;
    }
    if (splits > 1) {
      for (int i = threadIdx.x; i < count * ref.head_dim; i += kTileThreads) {
        float sum = heads[i];
        for (int s = 1; s < splits; ++s) sum += heads[s * split_size + i];
        heads[i] = sum;
      }
      __syncthreads();
    }
    const HeadPlace kind(ref, head);
    for (int row = threadIdx.x / kWarp; row < count; row += kTileWarps) {
      end(kind, first_row + row, heads + row * pitch);
    }
  }
};

size_t SumBytes(const LayerRef& layer, int tile_rows, const TileGrid& grid) {
  if (HeadTiles(layer) * grid.splits == 1) return 0;
  return int64_t{grid.row_tiles} * Heads(layer) * grid.splits * tile_rows * layer.head_dim *
         sizeof(float);
}

// Rows of one launch: as many as have a counter for each head of each row tile.
int32_t ChunkRows(const LayerRef& layer) {
  constexpr int32_t kLeastTileRows = 16;
  return std::min(kChunkRows, kCounters / Heads(layer) * kLeastTileRows);
}

int64_t OutputTiles(const LayerRef& layer) { return int64_t{Heads(layer)} * HeadTiles(layer); }

size_t Scratch(const LayerRef& layer, const Rows& normed, int32_t rows) {
  const size_t tiles = MostBytes(
      normed.dtype, std::min(rows, ChunkRows(layer)), OutputTiles(layer), normed.width,
      [&](int tile_rows, const TileGrid& grid) { return SumBytes(layer, tile_rows, grid); });
  return std::max(tiles, StreamQkvScratch(layer, rows));
}

Rows RowsAt(const Rows& rows, int64_t row) {
  const int64_t bytes = row * rows.width * static_cast<int64_t>(BytesOf(rows.dtype));
  return {static_cast<char*>(rows.data) + bytes, rows.dtype, rows.width};
}

cudaError_t LaunchByTiles(const QkvParams& p, const LaunchContext& context) {
  const int32_t most = ChunkRows(p.layer);
  if (most < 1) return cudaErrorNotSupported;  // more heads than counters
  for (int32_t row = 0; row < p.rows; row += most) {
    QkvParams chunk = p;
    chunk.rows = std::min(most, p.rows - row);
    chunk.map = {p.map.lane + row, p.map.position + row};
    chunk.normed = RowsAt(p.normed, row);
    chunk.q_out = RowsAt(p.q_out, row);
    const TileGrid grid =
        MakeTileGrid(p.normed.dtype, chunk.rows, OutputTiles(p.layer), p.normed.width);
    const cudaError_t error = WithType(p.normed.dtype, [&](auto zero) {
      return LaunchTiles<QkvWork<decltype(zero)>>(chunk, grid, context);
    });
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

size_t NormQkvScratch(const NormQkvParams& p) { return Scratch(p.layer, p.normed, p.rows); }
size_t QkvScratch(const QkvParams& p) { return Scratch(p.layer, p.normed, p.rows); }

cudaError_t LaunchQkv(const QkvParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchStream(p, context);
  return streamed != cudaErrorNotSupported ? streamed : LaunchByTiles(p, context);
}

cudaError_t LaunchNormQkv(const NormQkvParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchStream(p, context);
  if (streamed != cudaErrorNotSupported) return streamed;
  if (const cudaError_t error = LaunchNorms(p, context); error != cudaSuccess) return error;
  return LaunchByTiles({p.rows, p.map, p.lanes, p.layer, p.normed, p.q_out}, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
