// The products that go to the residual stream: the attention's output and the MLP's down product,
// alone or with the norms of what follows. Few rows as a stream; else by tiles, and those norms as
// a second kernel.
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ordered.h"
#include "kernels/cuda/ordered_product.cuh"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/tile_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

__device__ int32_t* AdvanceOf(const DownResidualParams& p) { return p.advance; }
template <typename P>
__device__ int32_t* AdvanceOf(const P&) {
  return nullptr;
}

// P: one of the three operations' parameters.
template <typename T, typename P>
struct ResidualWork {
  using Op = P;
  using Element = T;

  const LayerParams& layer;
  const T* weight;
  const Rows& x;
  int rows;
  int outputs;
  ResidualEnd end;

  __device__ explicit ResidualWork(const P& p)
      : layer(LayerOf(p.layer)),
        weight(static_cast<const T*>(WeightOf(p, layer).data)),
        x(InputOf(p)),
        rows(p.rows),
        outputs(p.hidden.width),
        end(p, layer) {}
  __device__ __forceinline__ CopySource<T> Weights(int output_tile, int i) const {
    return RowsFrom<T>(weight, int64_t{output_tile} * kTileOutputs + i, outputs, x.width);
  }
  template <typename Sums>
  __device__ __forceinline__ void End(const TileParams<Op>& p, const TilePlace& place,
                                      Sums& sums) const {
    const int first = place.output_tile * kTileOutputs;
    EndElements(p, place, rows, sums, [&](int output, int row, float low, float high) {
      if (first + output < outputs) end(row, first + output, low);
      if (first + output + 8 < outputs) end(row, first + output + 8, high);
    });
    AdvanceLayer(AdvanceOf(p.op), &p.counters[kCounters - 1], gridDim.x);
  }
};

template <typename P>
size_t Scratch(const P& p) {
  const Rows& in = InputOf(p);
  return MostBytes(in.dtype, p.rows, CeilDiv(p.hidden.width, kTileOutputs), in.width, PartialBytes);
}

template <typename P>
cudaError_t LaunchByTiles(const P& p, const LaunchContext& context) {
  const Rows& in = InputOf(p);
  const TileGrid grid =
      MakeTileGrid(in.dtype, p.rows, CeilDiv(p.hidden.width, kTileOutputs), in.width);
  return WithType(in.dtype, [&](auto zero) {
    return LaunchTiles<ResidualWork<decltype(zero), P>>(p, grid, context);
  });
}

template <typename P>
cudaError_t LaunchInOrderByTiles(const P& p, const LaunchContext& context) {
  const Rows& in = InputOf(p);
  return WithType(in.dtype, [&](auto zero) {
    return LaunchInOrder<ResidualWork<decltype(zero), P>>(
        p, CeilDiv(p.hidden.width, kTileOutputs), in.width, context);
  });
}

template <typename P>
cudaError_t LaunchOrdered(const P& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchOrderedStream(p, InputOf(p).dtype, context);
  return streamed != cudaErrorNotSupported ? streamed : LaunchInOrderByTiles(p, context);
}

}  // namespace

size_t OutputResidualScratch(const OutputResidualParams& p) { return Scratch(p); }
size_t DownResidualScratch(const DownResidualParams& p) { return Scratch(p); }
size_t DownNormScratch(const DownNormParams& p) { return Scratch(p); }

cudaError_t LaunchOutputResidual(const OutputResidualParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchStream(p, context);
  return streamed != cudaErrorNotSupported ? streamed : LaunchByTiles(p, context);
}

cudaError_t LaunchDownResidual(const DownResidualParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchStream(p, context);
  return streamed != cudaErrorNotSupported ? streamed : LaunchByTiles(p, context);
}

cudaError_t LaunchDownNorm(const DownNormParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchStream(p, context);
  if (streamed != cudaErrorNotSupported) return streamed;
  if (const cudaError_t error = LaunchByTiles(p, context); error != cudaSuccess) return error;
  return LaunchNorms(DownEndParams{p}, context);
}

cudaError_t LaunchOrderedOutputResidual(const OutputResidualParams& p,
                                        const LaunchContext& context) {
  return LaunchOrdered(p, context);
}

cudaError_t LaunchOrderedDownResidual(const DownResidualParams& p, const LaunchContext& context) {
  return LaunchOrdered(p, context);
}

cudaError_t LaunchOrderedDownNorm(const DownNormParams& p, const LaunchContext& context) {
  const cudaError_t streamed = LaunchOrderedStream(p, p.in.dtype, context);
  if (streamed != cudaErrorNotSupported) return streamed;
  const cudaError_t error = LaunchInOrderByTiles(p, context);
  return error != cudaSuccess ? error : LaunchNorms(DownEndParams{p}, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
