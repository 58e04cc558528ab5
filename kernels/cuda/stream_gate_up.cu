// norm + gate and up + activation as a stream: a tile's halves are the same rows of both matrices.
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/stream_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

template <typename T>
class GateUpStream {
 public:
  using Params = NormGateUpParams;
  static constexpr int kParts = 2;
  static constexpr bool kReady = false;
  struct Before {};

  __device__ explicit GateUpStream(const StreamParams<Params>& p)
      : GateUpStream(p, LayerOf(p.operation.layer)) {}
  __device__ __forceinline__ StreamTile<T> TileAt(int unit, int end) const {
    const int units = min(half_rows_, end - unit);
    const int64_t at = int64_t{unit} * columns_;
    return {units, {gate_ + at, up_ + at}, {units, units}};
  }
  __device__ __forceinline__ void Prefetch() const { PrefetchNorms(norms_); }
  template <bool kOrdered>
  __device__ __forceinline__ void FillRows(const StreamPlan& plan, float* shared, T* x) const {
    NormedRows<kOrdered>(plan, norms_, shared, x);
  }
  __device__ __forceinline__ Before Load(int, int) const { return {}; }
  __device__ __forceinline__ void End(int unit, int row, const float (&sums)[kParts],
                                      const Before&) const {
    end_(row, unit, sums[0], sums[1]);
  }
  template <bool kOrdered>
  __device__ __forceinline__ void Finish(const StreamParams<Params>&, float*) const {}

 private:
  __device__ GateUpStream(const StreamParams<Params>& p, const LayerParams& layer)
      : gate_(static_cast<const T*>(layer.gate.data)),
        up_(static_cast<const T*>(layer.up.data)),
        columns_(p.plan.columns),
        half_rows_(p.plan.half_rows),
        norms_(p.operation, layer),
        end_(p.operation, layer) {}

  const T* gate_;
  const T* up_;
  int columns_;
  int half_rows_;
  Norms norms_;
  GateUpEnd<T> end_;
};

}  // namespace

cudaError_t LaunchStream(const NormGateUpParams& p, const LaunchContext& context,
                         const StreamTuning& tuning) {
  const StreamPlan plan = PlanStream(
      {p.rows, p.out.width, 2, p.hidden.width, static_cast<int32_t>(BytesOf(p.out.dtype))}, tuning,
      context.multiprocessors);
  return WithType(p.out.dtype, [&](auto zero) {
    using T = decltype(zero);
    return LaunchStream<T, GateUpStream<T>>(plan, p, context);
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
