// All layers of a decoder as one kernel, for one row, with the bits of batch_invariant's chain of
// kernels: for steps of one row where a row's results are the same for any number of rows.
//
// A block a multiprocessor stays for the whole step, as in layers.cu: a warp has the block's part of
// all weights copied into a ring and never waits for an activation; nine warps norm, multiply and
// attend, each with its share of the columns; two add up. What blocks leave for each other are
// tagged words (words.cuh), five exchanges a layer.
//
// The order is the chain's: chains of 64 columns, and how they are added up, are panels'
// (panel_order.h). Rows are normed before they are multiplied, by each block for itself, in the
// order of the kernel that norms rows (norm_rows.cuh). Attention's groups of slots are those of
// ordered_attention.cu, and are merged where the output product reads them. Nothing may be spilled:
// where nearly all shared memory is in use, a load from local memory takes hundreds of cycles.
//
// A buffer of words is written again two layers later. By then everyone has read it: who writes has
// read words of the layer between from every block, and a block leaves those after all its warps
// have read theirs of the layer before.
//
// Bytes: every weight once, keys and values once a query head. Grid: a block a multiprocessor, all
// of them at once: launched cooperatively. Shared memory: all that a block may have; most of it is
// the ring. Assumes what OfferOrderedLayers takes; pointers that are multiples of 16 bytes.
#include "kernels/cuda/layers/cooperative.h"
#include "kernels/cuda/layers/copy.cuh"
#include "kernels/cuda/layers/layers.h"
#include "kernels/cuda/layers/ordered_shape.h"
#include "kernels/cuda/layers/ordered_shared.cuh"
#include "kernels/cuda/layers/ordered_sum.cuh"
#include "kernels/cuda/layers/ordered_work.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

template <typename S>
constexpr int kBefore = static_cast<int>(CeilDiv(sizeof(OrderedShared<S>), 128) * 128);

template <typename S>
__global__ void __launch_bounds__(kOrderedThreads<S>, 1)
    OrderedLayersKernel(const __grid_constant__ LayersArgs args) {
  auto& shared = *reinterpret_cast<OrderedShared<S>*>(DynamicShared());
  unsigned char* const ring = DynamicShared() + kBefore<S>;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kLayersSlots; ++i) {
      InitCopyBarrier(&shared.ring.full[i], 1);
      InitCopyBarrier(&shared.ring.empty[i], S::kWarps);
    }
    for (int i = 0; i < kLayersPartials; ++i) {
      for (int summer = 0; summer < 2; ++summer) {
        InitCopyBarrier(&shared.partial_full[summer][i], S::kWarps);
        InitCopyBarrier(&shared.partial_empty[summer][i], 1);
      }
    }
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
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(LayerParams) / 4);
       i += kOrderedThreads<S>) {
    reinterpret_cast<uint32_t*>(&shared.layers[0])[i] =
        __ldg(reinterpret_cast<const uint32_t*>(args.p.layer.table) + i);
  }
  __syncthreads();
  const int warp = threadIdx.x / kWarp;
  if (warp > S::kWarps + 1) {
    CopyWeights<S>(args, args.p.layer.table, args.p.layers, shared.runs, shared.ring, ring);
    WaitForDependency();
    return;
  }
  WaitForDependency();
  LayersExchange* const exchange = static_cast<LayersExchange*>(args.p.exchange);
  uint64_t* const words = reinterpret_cast<uint64_t*>(exchange + 1);
  const uint32_t tag = __ldcg(&exchange->layers);  // the last layer's that ran
  if (warp == S::kWarps) {
    OrderedSummer<S>{args, shared, *exchange, 0}.Run(words, tag);
  } else if (warp > S::kWarps) {
    OrderedSummer<S>{args, shared, *exchange, 1}.RunOther(words, tag);
  } else {
    OrderedWorker<S>(args, shared, ring).Run(words, tag);
  }
}


// That each block has a part of every product, of output and down one tile, and that panels cut
// products as the kernel does.
template <typename S>
bool Fits(int blocks) {
  bool fits = S::kItems <= blocks;
  for (int product = 0; product < 4; ++product) {
    fits = fits && PanelSplit(S::Units(product), S::Columns(product), product == 2, blocks) ==
                       S::Parts(product);
    for (int block = 0; block < blocks; ++block) {
      const int units = RunOf(S::Units(product), product == 2 ? 2 : 1, static_cast<uint32_t>(block),
                              static_cast<uint32_t>(blocks))
                            .units;
      fits = fits && units > 0 && (product != 1 || units <= 16) &&
             (product != 3 || units <= S::kMostDown);
    }
  }
  return fits;
}

using Gemma3OfOneBillion = OrderedLayersShape<1152, 4, 1, 256, 6912>;

}  // namespace

DecoderLayersOffer OfferOrderedLayers(const DecoderLayersShape& shape, int multiprocessors) {
  using S = Gemma3OfOneBillion;
  constexpr DType kType = DType::kBFloat16;
  const bool offers =
      shape.plain && shape.heads_turn_whole && shape.weights == kType &&
      shape.activations == kType && shape.kv == kType && shape.hidden == S::kHidden &&
      shape.heads == S::kHeads && shape.kv_heads == S::kKvHeads && shape.head_dim == S::kDim &&
      shape.intermediate == S::kIntermediate && shape.post_norms && Fits<S>(multiprocessors) &&
      HasRoom(OrderedLayersKernel<S>, kOrderedThreads<S>);
  if (!offers) return {};
  return {.rows = 1,
          .longest = kOrderedLongest,
          .exchange_bytes = sizeof(LayersExchange) + 2 * sizeof(uint64_t) * size_t{S::kWords},
          .counted = false};
}

cudaError_t LaunchOrderedLayers(const DecoderLayersParams& p, const LaunchContext& context,
                                const LayersTuning& tuning) {
  using S = Gemma3OfOneBillion;
  if (p.layer.counter != nullptr || p.normed.dtype != DType::kBFloat16 ||
      p.layer.kv_dtype != DType::kBFloat16 || p.layer.experts != 0 || p.rows != 1 ||
      p.hidden.width != S::kHidden || p.layer.q_rows != S::kQRows ||
      p.layer.kv_rows != S::kKvRows || p.layer.head_dim != S::kDim ||
      p.layer.intermediate != S::kIntermediate || !Fits<S>(context.multiprocessors)) {
    return cudaErrorNotSupported;
  }
  const auto kernel = OrderedLayersKernel<S>;
  constexpr int kRing = (kMostShared - kBefore<S>) / 128 * 128;
  static_assert(kRing >= 4 * kLayersRows * S::RowBytes(2));
  LayersArgs args{p, tuning, context.multiprocessors, kRing};
  if (tuning.under_way < 0) args.tuning.under_way = UnderWay(S::kUnderWay);
  if (tuning.missing < 0) args.tuning.missing = S::kMissing;
  return LaunchAtOnce(kernel, args, kOrderedThreads<S>, context);
}
cudaError_t LaunchOrderedLayers(const DecoderLayersParams& p, const LaunchContext& context) {
  return LaunchOrderedLayers(p, context, LayersTuning());
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
