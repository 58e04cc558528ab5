// All layers of a decoder as one kernel, for one row or four: a block a multiprocessor stays for
// the whole step. One warp of a block copies the block's part of every product's weights, layer
// after layer, into a ring in shared memory, and never waits for an activation: memory does not
// idle while activations are on their way. Other warps multiply what is there, a warp its share of
// the columns, and one more warp adds up what they have made and hands it to all blocks as tagged
// words (layers_words.cuh).
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
// of them at once. Shared memory: all that a block may have; most of it is the ring. Assumes: no
// biases; weights and cache in bfloat16; heads that turn whole; pointers that are multiples of 16
// bytes; no block of another kernel that waits for this one.
//
// A try, measured in tests/bench/results/decode-log.md; no part of the program.
#include "kernels/cuda/launch.cuh"
#include "tests/bench/layers_copy.cuh"
#include "tests/bench/layers_kernel.h"
#include "tests/bench/layers_shared.cuh"
#include "tests/bench/layers_sum.cuh"
#include "tests/bench/layers_work.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

namespace {

template <typename S>
__global__ void __launch_bounds__(kLayersThreads<S>, 1)
    LayersKernel(const __grid_constant__ LayersArgs args) {
  auto& shared = *reinterpret_cast<BlockShared<S>*>(DynamicShared());
  unsigned char* const ring = DynamicShared() + CeilDiv(sizeof(BlockShared<S>), 128) * 128;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kLayersSlots; ++i) {
      InitCopyBarrier(&shared.ring.full[i], 1);
      InitCopyBarrier(&shared.ring.empty[i], S::kWarps);
    }
    for (int i = 0; i < kLayersPartials; ++i) {
      InitCopyBarrier(&shared.partial_full[i], S::kWarps);
      InitCopyBarrier(&shared.partial_empty[i], 1);
    }
    // In a block that attends, of those too that do nothing else.
    InitCopyBarrier(&shared.stats_full,
                    static_cast<int>(blockIdx.x) < S::kItems ? S::kWorkers : S::kWarps);
    InitCopyBarrier(&shared.factors_full, 1);
    InitCopyBarrier(&shared.qkv_there, 1);
    InitCopyBarrier(&shared.words_there, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  if (threadIdx.x < 4) {
    const int product = threadIdx.x;
    shared.runs[product] = RunOf(S::Units(product), product == 2 ? 2 : 1, blockIdx.x, args.blocks);
  }
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(LayerParams) / 4); i += kLayersThreads<S>) {
    reinterpret_cast<uint32_t*>(&shared.layers[0])[i] =
        __ldg(reinterpret_cast<const uint32_t*>(args.p.layer.table) + i);
  }
  __syncthreads();
  const int warp = threadIdx.x / kWarp;
  if (warp > S::kWorkers) {
    CopyWeights<S>(args, shared.runs, shared.ring, ring);
    WaitForDependency();
    return;
  }
  WaitForDependency();
  LayersExchange* const exchange = static_cast<LayersExchange*>(args.p.exchange);
  uint64_t* const words = reinterpret_cast<uint64_t*>(exchange + 1);
  // A tag for a layer, of this launch alone.
  const uint32_t tag = __ldcg(&exchange->launches) * static_cast<uint32_t>(args.p.layers);
  if (warp == S::kWorkers) {
    Summer<S>{args, shared, *exchange}.Run(words, tag);
  } else {
    Worker<S>(args, shared, ring).Run(words, tag);
  }
}

template <typename S>
cudaError_t Launch(const DecoderLayersParams& p, const LaunchContext& context,
                   const LayersTuning& tuning) {
  constexpr int kMost = 227 * 1024;
  constexpr int kBefore = static_cast<int>(CeilDiv(sizeof(BlockShared<S>), 128) * 128);
  constexpr int kRing = (kMost - kBefore) / 128 * 128;
  // Three chunks, and the ends of rows that do not fit before the ring's end.
  static_assert(kRing >= 4 * kLayersRows * 2 * S::kPiece);
  const int blocks = context.multiprocessors;
  if (S::kItems > blocks || S::kHidden < blocks || S::kQkvRows < blocks ||
      CeilDiv(S::kHidden, blocks) > 16 * Worker<S>::kTiles) {
    return cudaErrorNotSupported;
  }
  const auto kernel = LayersKernel<S>;
  if (const cudaError_t error = AllowShared(kernel, kMost); error != cudaSuccess) return error;
  return LaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kLayersThreads<S>), kMost,
                      context, LayersArgs{p, tuning, blocks, kRing});
}

// body(shape) of the kernel for these layers, or `none`.
template <typename R, typename Body>
R WithShape(const DecoderLayersParams& p, R none, const Body& body) {
  const auto is = [&](auto shape) {
    using S = decltype(shape);
    return p.rows == S::kRows && p.hidden.width == S::kHidden && p.layer.q_rows == S::kQRows &&
           p.layer.kv_rows == S::kKvRows && p.layer.head_dim == S::kDim &&
           p.layer.intermediate == S::kIntermediate;
  };
#define SIROCCO_LAYERS(...)                  \
  if (is(LayersShape<__VA_ARGS__>())) {      \
    return body(LayersShape<__VA_ARGS__>()); \
  }
#if !defined(LAYERS_ONLY) || LAYERS_ONLY == 0
  SIROCCO_LAYERS(1152, 4, 1, 256, 6912, true, 1, 9, 4)
#endif
#if !defined(LAYERS_ONLY) || LAYERS_ONLY == 1
  SIROCCO_LAYERS(2048, 32, 8, 64, 8192, false, 1, 16, 4)
#endif
#if !defined(LAYERS_ONLY) || LAYERS_ONLY == 2
  SIROCCO_LAYERS(4096, 32, 8, 128, 14336, false, 1, 16, 4)
#endif
#if !defined(LAYERS_ONLY) || LAYERS_ONLY == 3
  SIROCCO_LAYERS(1152, 4, 1, 256, 6912, true, 4, 9, 4)
#endif
#if !defined(LAYERS_ONLY) || LAYERS_ONLY == 4
  SIROCCO_LAYERS(2048, 32, 8, 64, 8192, false, 4, 16, 1)
#endif
#if !defined(LAYERS_ONLY) || LAYERS_ONLY == 5
  SIROCCO_LAYERS(4096, 32, 8, 128, 14336, false, 4, 16, 1)
#endif
#undef SIROCCO_LAYERS
  return none;
}

}  // namespace

size_t DecoderLayersExchange(const DecoderLayersParams& p, int /*multiprocessors*/) {
  return WithShape(p, size_t{0}, [&](auto shape) {
    return sizeof(LayersExchange) + 2 * sizeof(uint64_t) * decltype(shape)::kWords;
  });
}

cudaError_t LaunchDecoderLayers(const DecoderLayersParams& p, const LaunchContext& context,
                                const LayersTuning& tuning) {
  return WithShape(p, cudaErrorNotSupported,
                   [&](auto shape) { return Launch<decltype(shape)>(p, context, tuning); });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
