// q, k and v as a stream, with or without the norm before. A unit is a pair of rows of a head, i
// and i + dim/2, which turn together: where a head is turned whole and has no norm of its own, a
// block ends its pairs alone. Else blocks leave their sums in scratch, and the last of a head to
// arrive ends the head.
//
// Scratch: [R, q_rows + 2 * kv_rows] float32. Counters: one a head.
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
  static constexpr int kParts = 2;
  // Of a pair.
  struct Before {
    float bias[2];
    float cosine;
    float sine;
  };

  __device__ explicit QkvStream(const StreamParams<P>& p)
      : QkvStream(p, LayerOf(p.operation.layer)) {}

  __device__ __forceinline__ StreamTile<T> TileAt(int unit, int end) const {
    const int head = unit / half_dim_;
    const int i = unit - head * half_dim_;
    const int units = min(min(half_rows_, end - unit), half_dim_ - i);
    const HeadPlace place(ref_, head);
    const T* from = static_cast<const T*>(place.Weight(layer_).data) +
                    (int64_t{place.own} * ref_.head_dim + i) * columns_;
    return {units, {from, from + int64_t{half_dim_} * columns_}, {units, units}};
  }

  __device__ __forceinline__ void Prefetch() const {
    if constexpr (kNorms) PrefetchNorms(Norms(operation_, layer_));
    if (layer_.q_norm != nullptr) PrefetchFloats<kStreamThreads>(layer_.q_norm, ref_.head_dim);
    if (layer_.k_norm != nullptr) PrefetchFloats<kStreamThreads>(layer_.k_norm, ref_.head_dim);
  }

  // Also finds `row`'s place in the cache, while the other loads are under way.
  __device__ __forceinline__ void FillRows(const StreamPlan& plan, int row, float* shared, T* x) {
    int lane = 0;
    if (row < plan.rows) {
      position_ = end_.map.position[row];
      lane = end_.map.lane[row];
    }
    if constexpr (kNorms) {
      NormedRows(plan, Norms(operation_, layer_), shared, x);
    } else {
      CopyRows(plan, static_cast<const T*>(operation_.normed.data), x);
    }
    if (row < plan.rows) block_ = end_.BlockOf(lane, position_);
  }

  __device__ __forceinline__ Before Load(int unit, int /*row*/) const {
    Before before = {{0, 0}, 1, 0};
    const int head = unit / half_dim_;
    const int pair = unit - head * half_dim_;
    const HeadPlace place(ref_, head);
    if (EndsWhole(place)) return before;
    const float* bias = place.Bias(layer_);
    if (bias != nullptr) {
      bias += int64_t{place.own} * ref_.head_dim + pair;
      before.bias[0] = bias[0];
      before.bias[1] = bias[half_dim_];
    }
    if (!place.is_v && turned_ != 0) {
      const float* turn = layer_.rotary.cos_sin + int64_t{position_} * turned_ + pair;
      before.cosine = turn[0];
      before.sine = turn[half_dim_];
    }
    return before;
  }

  __device__ __forceinline__ void End(int unit, int row, const float (&sums)[kParts],
                                      const Before& before) const {
    const int head = unit / half_dim_;
    const int pair = unit - head * half_dim_;
    const HeadPlace place(ref_, head);
    const float a = sums[0] + before.bias[0];
    const float b = sums[1] + before.bias[1];
    if (EndsWhole(place)) {
      float* to = sums_ + row * SumStride() + int64_t{head} * ref_.head_dim + pair;
      to[0] = a;
      to[half_dim_] = b;
      return;
    }
    const float low = a * before.cosine - b * before.sine;
    const float high = b * before.cosine + a * before.sine;
    if (place.is_q) {
      T* q = end_.q_out + int64_t{row} * ref_.q_rows + int64_t{place.own} * ref_.head_dim + pair;
      q[0] = FromFloat<T>(low);
      q[half_dim_] = FromFloat<T>(high);
    } else {
      const int64_t at = end_.SlotOf(place, block_, position_) + pair;
      StoreAs(layer_.kv.dtype, layer_.kv.data, at, low);
      StoreAs(layer_.kv.dtype, layer_.kv.data, at + half_dim_, high);
    }
  }

  // Ends the heads of which this block is the last to bring its pairs.
  __device__ void Finish(const StreamParams<P>& p, float*) const {
    if (!q_whole_ && !k_whole_) return;
    // One thread asks for each head of the block.
    constexpr int kMostHeads = kStreamThreads;
    __shared__ bool is_last[kMostHeads];
    const int first = p.plan.first_unit(blockIdx.x);
    const int end = p.plan.first_unit(blockIdx.x + 1);
    const int first_head = first / half_dim_;
    const int heads = (end + half_dim_ - 1) / half_dim_ - first_head;
    const int warp = threadIdx.x / kWarp;
    // Found while the arrivals are under way.
    SlotPlace place = {};
    if (warp < p.plan.rows) place = end_.PlaceOf(warp);
    __syncthreads();
    for (int base = 0; base < heads; base += kMostHeads) {
      const int count = min(kMostHeads, heads - base);
      if (threadIdx.x < count) is_last[threadIdx.x] = Arrive(p, first_head + base + threadIdx.x);
      __syncthreads();
      for (int i = 0; i < count; ++i) {
        const int head = first_head + base + i;
        if (is_last[i] && warp < p.plan.rows) {
          end_.EndHead(HeadPlace(ref_, head), warp, place,
                       sums_ + warp * SumStride() + int64_t{head} * ref_.head_dim);
        }
      }
      __syncthreads();
    }
  }

 private:
  static constexpr bool kNorms = std::is_same_v<P, NormQkvParams>;

  __device__ QkvStream(const StreamParams<P>& p, const LayerParams& layer)
      : operation_(p.operation),
        ref_(p.operation.layer),
        layer_(layer),
        columns_(p.plan.columns),
        half_rows_(p.plan.half_rows),
        half_dim_(p.operation.layer.head_dim / 2),
        turned_(layer.rotary.dim),
        sums_(p.scratch),
        end_(p.operation, layer) {
    const bool part = turned_ != 0 && turned_ != ref_.head_dim;
    q_whole_ = part || layer.q_norm != nullptr;
    k_whole_ = part || layer.k_norm != nullptr;
  }

  __device__ __forceinline__ int64_t SumStride() const {
    return ref_.q_rows + 2 * int64_t{ref_.kv_rows};
  }

  // Whether a head of this kind can only be ended as a whole.
  __device__ __forceinline__ bool EndsWhole(const HeadPlace& place) const {
    return !place.is_v && (place.is_q ? q_whole_ : k_whole_);
  }

  // Counts this block in for `head`: whether it is the last of those that have pairs of it.
  __device__ bool Arrive(const StreamParams<P>& p, int head) const {
    if (!EndsWhole(HeadPlace(ref_, head))) return false;
    // Of StreamPlan::first_unit.
    const uint32_t units = p.plan.units;
    const auto block_of = [&](uint32_t unit) { return ((unit + 1) * gridDim.x - 1) / units; };
    const uint32_t first = head * half_dim_;
    const uint32_t blocks = block_of(first + half_dim_ - 1) - block_of(first) + 1;
    return ArriveLast(&p.counters[head], blocks);
  }

  const P& operation_;
  const LayerRef& ref_;
  const LayerParams& layer_;
  int columns_;
  int half_rows_;
  int half_dim_;
  int turned_;
  bool q_whole_;
  bool k_whole_;
  float* sums_;
  QkvEnd<T> end_;
  int position_ = 0;  // of this thread's row of activations
  int block_ = 0;
};

template <typename P>
cudaError_t Launch(const P& p, const LaunchContext& context, const StreamTuning& tuning) {
  const LayerRef& layer = p.layer;
  const int32_t outputs = layer.q_rows + 2 * layer.kv_rows;
  if (layer.head_dim % 2 != 0 || outputs / layer.head_dim > kCounters) return cudaErrorNotSupported;
  const StreamPlan plan = PlanStream(
      {p.rows, outputs / 2, 2, p.normed.width, static_cast<int32_t>(BytesOf(p.normed.dtype))},
      tuning, context.multiprocessors);
  return WithType(p.normed.dtype, [&](auto zero) {
    using T = decltype(zero);
    return LaunchStream<T, QkvStream<T, P>>(plan, p, context);
  });
}

}  // namespace

size_t StreamQkvScratch(const LayerRef& layer, int32_t rows) {
  return static_cast<size_t>(std::min(rows, kStreamRows)) *
         (layer.q_rows + 2 * size_t{static_cast<uint32_t>(layer.kv_rows)}) * sizeof(float);
}

cudaError_t LaunchStream(const NormQkvParams& p, const LaunchContext& context,
                         const StreamTuning& tuning) {
  return Launch(p, context, tuning);
}

cudaError_t LaunchStream(const QkvParams& p, const LaunchContext& context,
                         const StreamTuning& tuning) {
  return Launch(p, context, tuning);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
