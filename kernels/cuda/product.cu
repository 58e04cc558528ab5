// The matrix product with pointers that the host knows: few rows as a stream, else by tiles.
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ordered.h"
#include "kernels/cuda/ordered_product.cuh"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/tile_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

template <typename T>
struct MatMulWork {
  using Op = MatMulParams;
  using Element = T;

  const Matrix& weight;
  const Rows& x;
  int rows;
  StoreEnd<T> end;

  __device__ explicit MatMulWork(const MatMulParams& p)
      : weight(p.weight), x(p.in), rows(p.rows), end(p) {}
  __device__ __forceinline__ CopySource<T> Weights(int output_tile, int i) const {
    return RowsFrom<T>(weight.data, int64_t{output_tile} * kTileOutputs + i, weight.rows,
                       weight.cols);
  }
  template <typename Sums>
  __device__ __forceinline__ void End(const TileParams<Op>& p, const TilePlace& place,
                                      Sums& sums) const {
    const int first = place.output_tile * kTileOutputs;
    EndElements(p, place, rows, sums, [&](int output, int row, float low, float high) {
      if (first + output < weight.rows) end(row, first + output, low);
      if (first + output + 8 < weight.rows) end(row, first + output + 8, high);
    });
  }
};

int64_t OutputTiles(const MatMulParams& p) { return CeilDiv(p.weight.rows, kTileOutputs); }

}  // namespace

size_t MatMulScratch(const MatMulParams& p) {
  return MostBytes(p.weight.dtype, p.rows, OutputTiles(p), p.weight.cols, PartialBytes);
}

cudaError_t LaunchMatMul(const MatMulParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchStream(p, context);
  if (streamed != cudaErrorNotSupported) return streamed;
  const TileGrid grid = MakeTileGrid(p.weight.dtype, p.rows, OutputTiles(p), p.weight.cols);
  return WithType(p.weight.dtype, [&](auto zero) {
    return LaunchTiles<MatMulWork<decltype(zero)>>(p, grid, context);
  });
}

cudaError_t LaunchOrderedMatMul(const MatMulParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchOrderedStream(p, p.weight.dtype, context);
  if (streamed != cudaErrorNotSupported) return streamed;
  return WithType(p.weight.dtype, [&](auto zero) {
    return LaunchInOrder<MatMulWork<decltype(zero)>>(p, OutputTiles(p), p.weight.cols, context);
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
