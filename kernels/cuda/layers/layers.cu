// All layers of a decoder as one kernel, for one row: a block a multiprocessor stays for the whole
// step. Or one layer, that of a counter: the same with a launch a layer, which begins with an empty
// ring, with the stream and what the layer before adds in memory, and leaves both there. One warp of a block copies the block's part of every product's weights, layer
// after layer, into a ring in shared memory, and never waits for an activation: memory does not
// idle while activations are on their way. Other warps multiply what is there, a warp its share of
// the columns, and one more warp adds up what they have made and hands it to all blocks as tagged
// words (words.cuh).
//
// A layer is five such exchanges: q, k, v; attention's parts, merged where they are read; what
// attention adds to the stream; the activated MLP; what that adds. A warp waits only for the
// activations of its own columns, and has these columns of the residual stream in its registers. It
// does not wait for norms: a product is linear, so what a norm divides by is applied to the sums;
// where what is added is normed as well, the stream and what is added are multiplied side by side.
//
// A buffer of words is written again two layers later. By then everyone has read it: who writes has
// read words of the layer between from every block, and a block leaves those after all its warps
// have read theirs of the layer before.
//
// Bytes: every weight once, keys and values once a query head. Grid: a block a multiprocessor, all
// of them at once: launched cooperatively. Shared memory: all that a block may have; most of it is
// the ring. Assumes what OfferLayers takes; pointers that are multiples of 16 bytes. What each way
// to do it was worth: tests/bench/results/decode-log.md.
#include "kernels/cuda/layers/cooperative.h"
#include "kernels/cuda/layers/copy.cuh"
#include "kernels/cuda/layers/layers.h"
#include "kernels/cuda/layers/shared.cuh"
#include "kernels/cuda/layers/sum.cuh"
#include "kernels/cuda/layers/work.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// kOne: the layer that the counter says, else all.
template <typename S, bool kOne>
__global__ void __launch_bounds__(kLayersThreads<S>, 1)
    LayersKernel(const __grid_constant__ LayersArgs args) {
  auto& shared = *reinterpret_cast<BlockShared<S>*>(DynamicShared());
  unsigned char* const ring = DynamicShared() + CeilDiv(sizeof(BlockShared<S>), 128) * 128;
  int first = 0;
  if constexpr (kOne) {
    WaitForDependency();
    first = __ldcg(args.p.layer.counter);
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < kLayersSlots; ++i) {
      InitCopyBarrier(&shared.ring.full[i], 1);
      InitCopyBarrier(&shared.ring.empty[i], S::kWarps);
    }
    for (int i = 0; i < kLayersPartials; ++i) {
      InitCopyBarrier(&shared.partial_full[i], S::kWarps);
      InitCopyBarrier(&shared.partial_empty[i], 1);
    }
    InitCopyBarrier(&shared.stats_full, S::kWarps);
    InitCopyBarrier(&shared.factors_full, 1);
    InitCopyBarrier(&shared.qkv_there, 1);
    InitCopyBarrier(&shared.words_there, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  // Another warp's, beside the barriers.
  if (threadIdx.x / kWarp == 1 && threadIdx.x % kWarp < 4) {
    const int product = threadIdx.x % kWarp;
    shared.runs[product] = RunOf(S::Units(product), product == 2 ? 2 : 1, blockIdx.x,
                                 static_cast<uint32_t>(args.blocks));
  }
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(LayerParams) / 4); i += kLayersThreads<S>) {
    reinterpret_cast<uint32_t*>(&shared.layers[0])[i] =
        __ldg(reinterpret_cast<const uint32_t*>(args.p.layer.table + first) + i);
  }
  __syncthreads();
  const int warp = threadIdx.x / kWarp;
  if (warp > S::kWarps) {
    if constexpr (kOne) {
      CopyWeights<S>(args, &shared.layers[0], 1, shared.runs, shared.ring, ring);
    } else {
      CopyWeights<S>(args, args.p.layer.table, args.p.layers, shared.runs, shared.ring, ring);
      WaitForDependency();
    }
    return;
  }
  if constexpr (!kOne) WaitForDependency();
  LayersExchange* const exchange = static_cast<LayersExchange*>(args.p.exchange);
  uint64_t* const words = reinterpret_cast<uint64_t*>(exchange + 1);
  // A layer's tag is its number among all that ran, whether a launch has all layers or one: counts
  // go by it, too, and who waits for a count that nobody reaches waits for ever.
  const uint32_t tag = __ldcg(&exchange->layers);
  if (warp == S::kWarps) {
    Summer<S, kOne>{args, shared, *exchange}.Run(words, tag, first);
  } else {
    Worker<S, kOne>(args, shared, ring).Run(words, tag, first);
  }
}

template <typename S>
constexpr int kBefore = static_cast<int>(CeilDiv(sizeof(BlockShared<S>), 128) * 128);

template <typename S>
constexpr bool Fits(int blocks) {
  // Each block has a part of every product, and no more tiles than its warps have sums for.
  return S::kItems <= blocks && S::kHidden >= blocks && S::kQkvRows >= blocks &&
         S::kIntermediate / 2 >= blocks && CeilDiv(S::kHidden, blocks) <= 16 * Worker<S, false>::kTiles;
}

template <typename S>
cudaError_t Launch(const DecoderLayersParams& p, const LaunchContext& context,
                   const LayersTuning& tuning) {
  constexpr int kRing = (kMostShared - kBefore<S>) / 128 * 128;
  static_assert(kRing >= 4 * kLayersRows * 2 * S::kPiece);
  const int blocks = context.multiprocessors;
  if (!Fits<S>(blocks)) return cudaErrorNotSupported;
  const bool one = p.layer.counter != nullptr;
  const auto kernel = one ? LayersKernel<S, true> : LayersKernel<S, false>;
  LayersArgs args{p, tuning, blocks, kRing};
  if (tuning.under_way < 0) {
    args.tuning.under_way = UnderWay(one ? S::kUnderWayOfOne : S::kUnderWay);
  }
  if (tuning.missing < 0) args.tuning.missing = S::kMissing;
  return LaunchAtOnce(kernel, args, kLayersThreads<S>, context);
}

// What the kernel is compiled for: where it is faster than a kernel an operation, one row. Hidden
// size, heads, KV heads, their size, intermediate size, post-norms; rows; warps that multiply,
// parts of a head.
using Gemma3OfOneBillion = LayersShape<1152, 4, 1, 256, 6912, true, 1, 9, 8>;
using Llama3OfOneBillion = LayersShape<2048, 32, 8, 64, 8192, false, 1, 16, 4>;

// So long a context is where it was measured to be faster; beyond, a head's slots want more blocks.
constexpr int32_t kLongest = kLayersCachedBlocks * 16;

// body(shape) of the first for which `is` holds, or `none`.
template <typename R, typename Is, typename Body>
R WithShape(R none, const Is& is, const Body& body) {
  if (is(Gemma3OfOneBillion())) return body(Gemma3OfOneBillion());
  if (is(Llama3OfOneBillion())) return body(Llama3OfOneBillion());
  return none;
}

}  // namespace

DecoderLayersOffer OfferLayers(const DecoderLayersShape& shape, int multiprocessors) {
  constexpr DType kType = DType::kBFloat16;
  if (!shape.plain || !shape.heads_turn_whole || shape.weights != kType ||
      shape.activations != kType || shape.kv != kType) {
    return {};
  }
  return WithShape(
      DecoderLayersOffer(),
      [&](auto of) {
        using S = decltype(of);
        return shape.hidden == S::kHidden && shape.heads == S::kHeads &&
               shape.kv_heads == S::kKvHeads && shape.head_dim == S::kDim &&
               shape.intermediate == S::kIntermediate && shape.post_norms == S::kPost &&
               Fits<S>(multiprocessors) && HasRoom(LayersKernel<S, false>, kLayersThreads<S>) &&
               HasRoom(LayersKernel<S, true>, kLayersThreads<S>);
      },
      [](auto of) {
        using S = decltype(of);
        return DecoderLayersOffer{
            S::kRows, kLongest, sizeof(LayersExchange) + 2 * sizeof(uint64_t) * size_t{S::kWords}};
      });
}

cudaError_t LaunchLayers(const DecoderLayersParams& p, const LaunchContext& context,
                         const LayersTuning& tuning) {
  if ((p.layer.counter == nullptr && p.normed.dtype != DType::kBFloat16) ||
      p.layer.kv_dtype != DType::kBFloat16 || p.layer.experts != 0) {
    return cudaErrorNotSupported;
  }
  return WithShape(
      cudaErrorNotSupported,
      [&](auto of) {
        using S = decltype(of);
        return p.rows == S::kRows && p.hidden.width == S::kHidden && p.layer.q_rows == S::kQRows &&
               p.layer.kv_rows == S::kKvRows && p.layer.head_dim == S::kDim &&
               p.layer.intermediate == S::kIntermediate;
      },
      [&](auto of) { return Launch<decltype(of)>(p, context, tuning); });
}
cudaError_t LaunchLayers(const DecoderLayersParams& p, const LaunchContext& context) {
  return LaunchLayers(p, context, LayersTuning());
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
