// q, k and v as a stream, with or without the norms before: each sum goes to `qkv` as it is.
#include <type_traits>

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/stream_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// P: NormQkvParams or QkvParams.
template <typename T, typename P>
class QkvStream {
 public:
  using Params = P;
  static constexpr int kParts = 1;
  static constexpr bool kReady = !std::is_same_v<P, NormQkvParams>;
  struct Before {};

  __device__ explicit QkvStream(const StreamParams<P>& p)
      : operation_(p.operation),
        layer_(LayerOf(p.operation.layer)),
        columns_(p.plan.columns),
        half_rows_(p.plan.half_rows) {}

  // The second half of a tile follows the first; a tile ends with its matrix.
  __device__ __forceinline__ StreamTile<T> TileAt(int unit, int end) const {
    const QkvPlace place(operation_.layer, unit);
    const int units = min(min(2 * half_rows_, end - unit), place.rows - place.row);
    const int first = min(half_rows_, units);
    const T* from =
        static_cast<const T*>(place.Weight(layer_).data) + int64_t{place.row} * columns_;
    return {units, {from, from + int64_t{first} * columns_}, {first, units - first}};
  }

  __device__ __forceinline__ void Prefetch() const {
    if constexpr (!kReady) PrefetchNorms(Norms(operation_, layer_));
  }
  __device__ __forceinline__ const T* Ready() const {
    return static_cast<const T*>(operation_.normed.data);
  }
  template <bool kOrdered>
  __device__ __forceinline__ void FillRows(const StreamPlan& plan, float* shared, T* x) const {
    NormedRows<kOrdered>(plan, Norms(operation_, layer_), shared, x);
  }
  __device__ __forceinline__ Before Load(int, int) const { return {}; }
  __device__ __forceinline__ void End(int unit, int row, const float (&sums)[kParts],
                                      const Before&) const {
    static_cast<float*>(operation_.qkv.data)[int64_t{row} * operation_.qkv.width + unit] = sums[0];
  }
  template <bool kOrdered>
  __device__ __forceinline__ void Finish(const StreamParams<P>&, float*) const {}

 private:
  const P& operation_;
  const LayerParams& layer_;
  int columns_;
  int half_rows_;
};

template <typename P>
cudaError_t Launch(const P& p, const LaunchContext& context, const StreamTuning& tuning) {
  const StreamPlan plan = PlanStream(
      {p.rows, p.qkv.width, 1, p.normed.width, static_cast<int32_t>(BytesOf(p.normed.dtype))},
      tuning, context.multiprocessors);
  return WithType(p.normed.dtype, [&](auto zero) {
    using T = decltype(zero);
    return LaunchStream<T, QkvStream<T, P>>(plan, p, context);
  });
}

}  // namespace

cudaError_t LaunchStream(const NormQkvParams& p, const LaunchContext& context,
                         const StreamTuning& tuning) {
  return Launch(p, context, tuning);
}

cudaError_t LaunchStream(const QkvParams& p, const LaunchContext& context,
                         const StreamTuning& tuning) {
  return Launch(p, context, tuning);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
