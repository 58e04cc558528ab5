// The products of q, k and v, with or without the norms before: few rows as a stream; else the
// norms, then one product over the tiles of all three matrices.
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ordered.h"
#include "kernels/cuda/ordered_product.cuh"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/tile_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// Tiles go through q's outputs, then k's, then v's.
struct QkvTiles {
  int q, kv;

  __host__ __device__ explicit QkvTiles(const LayerRef& layer)
      : q(static_cast<int>(CeilDiv(layer.q_rows, kTileOutputs))),
        kv(static_cast<int>(CeilDiv(layer.kv_rows, kTileOutputs))) {}
  // The first output of a tile, counted through all three.
  __device__ __forceinline__ int First(const LayerRef& layer, int tile) const {
    if (tile < q) return tile * kTileOutputs;
    if (tile < q + kv) return layer.q_rows + (tile - q) * kTileOutputs;
    return layer.q_rows + layer.kv_rows + (tile - q - kv) * kTileOutputs;
  }
};

template <typename T>
struct QkvWork {
  using Op = QkvParams;
  using Element = T;

  const LayerRef& ref;
  const LayerParams& layer;
  const Rows& x;
  int rows;
  float* out;
  int width;

  __device__ explicit QkvWork(const QkvParams& p)
      : ref(p.layer),
        layer(LayerOf(p.layer)),
        x(p.normed),
        rows(p.rows),
        out(static_cast<float*>(p.qkv.data)),
        width(p.qkv.width) {}

  __device__ __forceinline__ CopySource<T> Weights(int output_tile, int i) const {
    const QkvPlace place(ref, QkvTiles(ref).First(ref, output_tile));
    return RowsFrom<T>(place.Weight(layer).data, int64_t{place.row} + i, place.rows, x.width);
  }

  template <typename Sums>
  __device__ __forceinline__ void End(const TileParams<Op>& p, const TilePlace& place,
                                      Sums& sums) const {
    const int first = QkvTiles(ref).First(ref, place.output_tile);
    const QkvPlace own(ref, first);
    const int count = own.rows - own.row;  // outputs to the matrix's end
    EndElements(p, place, rows, sums, [&](int output, int row, float low, float high) {
      float* const to = out + int64_t{row} * width + first;
      if (output < count) to[output] = low;
      if (output + 8 < count) to[output + 8] = high;
    });
  }
};

int64_t OutputTiles(const LayerRef& layer) {
  const QkvTiles tiles(layer);
  return int64_t{tiles.q} + 2 * int64_t{tiles.kv};
}

template <typename P>
size_t Scratch(const P& p) {
  return MostBytes(p.normed.dtype, p.rows, OutputTiles(p.layer), p.normed.width, PartialBytes);
}

cudaError_t LaunchByTiles(const QkvParams& p, const LaunchContext& context) {
  const TileGrid grid =
      MakeTileGrid(p.normed.dtype, p.rows, OutputTiles(p.layer), p.normed.width);
  return WithType(p.normed.dtype, [&](auto zero) {
    return LaunchTiles<QkvWork<decltype(zero)>>(p, grid, context);
  });
}

}  // namespace

size_t NormQkvScratch(const NormQkvParams& p) { return Scratch(p); }
size_t QkvScratch(const QkvParams& p) { return Scratch(p); }

cudaError_t LaunchQkv(const QkvParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchStream(p, context);
  return streamed != cudaErrorNotSupported ? streamed : LaunchByTiles(p, context);
}

cudaError_t LaunchNormQkv(const NormQkvParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchStream(p, context);
  if (streamed != cudaErrorNotSupported) return streamed;
  if (const cudaError_t error = LaunchNorms(p, context); error != cudaSuccess) return error;
  return LaunchByTiles({p.rows, p.layer, p.normed, p.qkv}, context);
}

cudaError_t LaunchOrderedQkv(const QkvParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchOrderedStream(p, p.normed.dtype, context);
  if (streamed != cudaErrorNotSupported) return streamed;
  return WithType(p.normed.dtype, [&](auto zero) {
    return LaunchInOrder<QkvWork<decltype(zero)>>(p, OutputTiles(p.layer), p.normed.width, context);
  });
}

cudaError_t LaunchOrderedNormQkv(const NormQkvParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchOrderedStream(p, p.normed.dtype, context);
  if (streamed != cudaErrorNotSupported) return streamed;
  if (const cudaError_t error = LaunchNorms(p, context); error != cudaSuccess) return error;
  const QkvParams products = {p.rows, p.layer, p.normed, p.qkv};
  return WithType(p.normed.dtype, [&](auto zero) {
    return LaunchInOrder<QkvWork<decltype(zero)>>(products, OutputTiles(p.layer), p.normed.width,
                                                  context);
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
