// Streamed products whose outputs are stored one by one: plain ones, and those that go to the
// residual stream.
#include <type_traits>

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/stream_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// A unit is a row of weights; the second half of a tile follows the first.
template <typename T>
struct RowTiles {
  const T* weights;  // [units, columns]
  int columns;
  int half_rows;

  __device__ __forceinline__ StreamTile<T> At(int unit, int end) const {
    const int units = min(2 * half_rows, end - unit);
    const int first = min(half_rows, units);
    const T* from = weights + int64_t{unit} * columns;
    return {units, {from, from + int64_t{first} * columns}, {first, units - first}};
  }
};

template <typename T>
class MatMulStream {
 public:
  using Params = MatMulParams;
  static constexpr int kParts = 1;
  static constexpr bool kReady = true;
  struct Before {
    float bias;
  };

  __device__ explicit MatMulStream(const StreamParams<Params>& p)
      : tiles_{static_cast<const T*>(p.operation.weight.data), p.plan.columns, p.plan.half_rows},
        in_(static_cast<const T*>(p.operation.in.data)),
        end_(p.operation) {}
  __device__ __forceinline__ StreamTile<T> TileAt(int unit, int end) const {
    return tiles_.At(unit, end);
  }
  __device__ __forceinline__ void Prefetch() const {}
  __device__ __forceinline__ const T* Ready() const { return in_; }
  __device__ __forceinline__ Before Load(int unit, int /*row*/) const {
    return {end_.Before(unit)};
  }
  __device__ __forceinline__ void End(int unit, int row, const float (&sums)[kParts],
                                      const Before& before) const {
    end_.Store(row, unit, sums[0] + before.bias);
  }
  template <bool kOrdered>
  __device__ __forceinline__ void Finish(const StreamParams<Params>&, float*) const {}

 private:
  RowTiles<T> tiles_;
  const T* in_;
  StoreEnd<T> end_;
};

// P: OutputResidualParams, DownResidualParams or DownNormParams.
template <typename T, typename P>
class ResidualStream {
 public:
  using Params = P;
  static constexpr int kParts = 1;
  static constexpr bool kReady = true;
  using Before = ResidualEnd::Loaded;

  __device__ explicit ResidualStream(const StreamParams<P>& p)
      : operation_(p.operation),
        layer_(LayerOf(p.operation.layer)),
        tiles_{static_cast<const T*>(WeightOf(p.operation, layer_).data), p.plan.columns,
               p.plan.half_rows},
        in_(static_cast<const T*>(InputOf(p.operation).data)),
        end_(p.operation, layer_) {}
  __device__ __forceinline__ StreamTile<T> TileAt(int unit, int end) const {
    return tiles_.At(unit, end);
  }
  __device__ __forceinline__ void Prefetch() const {
    if constexpr (std::is_same_v<P, DownNormParams>) PrefetchNorms(Norms(operation_, layer_));
  }
  __device__ __forceinline__ const T* Ready() const { return in_; }
  __device__ __forceinline__ Before Load(int unit, int row) const { return end_.Before(row, unit); }
  __device__ __forceinline__ void End(int unit, int row, const float (&sums)[kParts],
                                      const Before& before) const {
    end_.Store(row, unit, sums[0], before);
  }
  template <bool kOrdered>
  __device__ __forceinline__ void Finish(const StreamParams<P>& p, float* shared) const {
    if constexpr (std::is_same_v<P, DownResidualParams>) {
      AdvanceLayer(p.operation.advance, &p.counters[0], gridDim.x);
    }
    if constexpr (std::is_same_v<P, DownNormParams>) {
      // The last block norms what all have left.
      if (!LastToArrive(&p.counters[0], gridDim.x)) return;
      const Norms norms(p.operation, layer_);
      NormRows<kOrdered>(norms, p.operation.rows, true, shared,
                         [&](int row, int column, const Pack<float, 4>& normed) {
                           T* to =
                               static_cast<T*>(norms.normed) + int64_t{row} * norms.width + column;
                           StoreFloats<T, 4>(normed.at, to);
                         });
    }
  }

 private:
  const P& operation_;
  const LayerParams& layer_;
  RowTiles<T> tiles_;
  const T* in_;
  ResidualEnd end_;
};

StreamShape ShapeOf(int32_t rows, int32_t units, const Rows& in) {
  return {rows, units, 1, in.width, static_cast<int32_t>(BytesOf(in.dtype))};
}

template <typename P>
cudaError_t Launch(const P& p, const LaunchContext& context, const StreamTuning& tuning) {
  const Rows& in = InputOf(p);
  const StreamPlan plan =
      PlanStream(ShapeOf(p.rows, p.hidden.width, in), tuning, context.multiprocessors);
  return WithType(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    return LaunchStream<T, ResidualStream<T, P>>(plan, p, context);
  });
}

}  // namespace

cudaError_t LaunchStream(const MatMulParams& p, const LaunchContext& context,
                         const StreamTuning& tuning) {
  if (p.in.dtype != p.weight.dtype || !IsAligned(p.weight.data, 16) || !IsAligned(p.in.data, 16)) {
    return cudaErrorNotSupported;
  }
  const StreamPlan plan =
      PlanStream(ShapeOf(p.rows, p.weight.rows, p.in), tuning, context.multiprocessors);
  return WithType(p.weight.dtype, [&](auto zero) {
    using T = decltype(zero);
    return LaunchStream<T, MatMulStream<T>>(plan, p, context);
  });
}
cudaError_t LaunchStream(const OutputResidualParams& p, const LaunchContext& context,
                         const StreamTuning& tuning) {
  return Launch(p, context, tuning);
}
cudaError_t LaunchStream(const DownResidualParams& p, const LaunchContext& context,
                         const StreamTuning& tuning) {
  return Launch(p, context, tuning);
}
cudaError_t LaunchStream(const DownNormParams& p, const LaunchContext& context,
                         const StreamTuning& tuning) {
  if (p.hidden.width % 4 != 0) return cudaErrorNotSupported;  // its norms go by four
  return Launch(p, context, tuning);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
