// norm + gate and up + activation: few rows as a stream; else the norms, then one product whose
// tiles hold the same 32 outputs of both matrices.
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ordered.h"
#include "kernels/cuda/ordered_product.cuh"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/tile_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kOutputs = kTileOutputs / 2;  // of each matrix

template <typename T>
struct GateUpWork {
  using Op = NormGateUpParams;
  using Element = T;

  const LayerParams& layer;
  const Rows& x;
  int rows;
  int outputs;
  GateUpEnd<T> end;

  __device__ explicit GateUpWork(const NormGateUpParams& p)
      : layer(LayerOf(p.layer)), x(p.normed), rows(p.rows), outputs(p.out.width), end(p, layer) {}

  // Of 16 rows of the tile, 8 of gate and the same 8 of up: a thread has both in its pairs of sums.
  __device__ __forceinline__ CopySource<T> Weights(int output_tile, int i) const {
    constexpr int kEach = kCopyRows / 2;
    const Matrix& matrix = i < kEach ? layer.gate : layer.up;
    const int64_t row = int64_t{output_tile} * kOutputs + i % kEach;
    return RowsFrom<T, kEach>(matrix.data, row, outputs, x.width);
  }

  template <typename Sums>
  __device__ __forceinline__ void End(const TileParams<Op>& p, const TilePlace& place,
                                      Sums& sums) const {
    EndElements(p, place, rows, sums, [&](int output, int row, float gate, float up) {
      const int column = place.output_tile * kOutputs + output / 16 * 8 + output % 8;
      if (column < outputs) end(row, column, gate, up);
    });
  }
};

int64_t OutputTiles(const NormGateUpParams& p) { return CeilDiv(p.out.width, kOutputs); }

}  // namespace

size_t NormGateUpScratch(const NormGateUpParams& p) {
  return MostBytes(p.normed.dtype, p.rows, OutputTiles(p), p.normed.width, PartialBytes);
}

cudaError_t LaunchNormGateUp(const NormGateUpParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchStream(p, context);
  if (streamed != cudaErrorNotSupported) return streamed;
  if (const cudaError_t error = LaunchNorms(p, context); error != cudaSuccess) return error;
  const TileGrid grid = MakeTileGrid(p.normed.dtype, p.rows, OutputTiles(p), p.normed.width);
  return WithType(p.normed.dtype, [&](auto zero) {
    return LaunchTiles<GateUpWork<decltype(zero)>>(p, grid, context);
  });
}

cudaError_t LaunchOrderedNormGateUp(const NormGateUpParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchOrderedStream(p, p.normed.dtype, context);
  if (streamed != cudaErrorNotSupported) return streamed;
  if (const cudaError_t error = LaunchNorms(p, context); error != cudaSuccess) return error;
  return WithType(p.normed.dtype, [&](auto zero) {
    return LaunchInOrder<GateUpWork<decltype(zero)>>(p, OutputTiles(p), p.normed.width, context);
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
