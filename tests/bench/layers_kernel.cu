// All layers of a decoder as one kernel, for one row: a block a multiprocessor stays for the whole
// step. One thread of a block copies the block's part of every product's weights, layer after
// layer, into a ring in shared memory, and never waits for an activation: memory does not idle
// while activations are on their way. The other warps multiply what is there, many times faster
// than memory delivers it, and hand each product's outputs to all blocks as tagged words
// (layers_words.cuh).
//
// A layer is six such exchanges: q, k, v; the parts of a head's slots; attention's outputs; what
// attention adds to the stream; the activated MLP; what that adds. Every block keeps the residual
// stream in its registers, takes in what is added, and norms it for itself.
//
// A buffer of words is written again two layers later. By then everyone has read it: who writes has
// read words of the layer between from every block, and a block leaves those after it has read its
// own of the layer before.
//
// Bytes: every weight once, keys and values once a query head. Grid: a block a multiprocessor, all
// of them at once. Shared memory: all that a block may have; about 160 to 190 KiB of it are the
// ring. Assumes: one row; widths that are multiples of 64; weights and cache in bfloat16; heads of
// 64, 128 or 256 dimensions that turn whole; pointers that are multiples of 16 bytes; no block of
// another kernel that waits for this one.
//
// A try, measured in tests/bench/results/decode-log.md; no part of the program.
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"
#include "tests/bench/layers_attention.cuh"
#include "tests/bench/layers_kernel.h"
#include "tests/bench/layers_multiply.cuh"
#include "tests/bench/layers_plan.h"
#include "tests/bench/layers_ring.cuh"
#include "tests/bench/layers_stream.cuh"
#include "tests/bench/layers_words.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// [2][words] after it, of which the first half is even layers'.
struct LayersExchange {
  uint32_t launches;
  uint32_t unused[31];
};

// ---- The copying thread
// --------------------------------------------------------------------------

template <typename T>
__device__ __noinline__ void CopyWeights(const LayersArgs& args, RingShared& shared,
                                         unsigned char* ring) {
  const LayersPlan& plan = args.plan;
  const int block = blockIdx.x;
  RingWriter writer(shared, ring, plan.ring_bytes);
  struct Run {
    int first, end;
  };
  const auto run_of = [&](const LayersProduct& product) {
    return Run{product.first_unit(block, plan.blocks), product.first_unit(block + 1, plan.blocks)};
  };
  const Run qkv = run_of(plan.products[0]);
  const Run output = run_of(plan.products[1]);
  const Run gate_up = run_of(plan.products[2]);
  const Run down = run_of(plan.products[3]);
  struct Pointers {
    const T *q, *k, *v, *o, *gate, *up, *down;
    __device__ explicit Pointers(const LayerParams& l)
        : q(static_cast<const T*>(l.q.data)),
          k(static_cast<const T*>(l.k.data)),
          v(static_cast<const T*>(l.v.data)),
          o(static_cast<const T*>(l.o.data)),
          gate(static_cast<const T*>(l.gate.data)),
          up(static_cast<const T*>(l.up.data)),
          down(static_cast<const T*>(l.down.data)) {}
  };
  const int q_rows = args.p.layer.q_rows;
  const int kv_rows = args.p.layer.kv_rows;
  const auto plain = [&](const LayersProduct& product, const Run& run, const T* from) {
    const int row_bytes = product.columns * 2;
    for (int unit = run.first; unit < run.end; unit += product.chunk_units) {
      const int rows = min(product.chunk_units, run.end - unit);
      writer.Begin(rows, row_bytes);
      writer.Put(from + int64_t{unit} * product.columns, rows);
    }
  };
  Pointers next(args.p.layer.table[0]);
  for (int layer = 0; layer < args.p.layers; ++layer) {
    const Pointers weights = next;
    if (layer + 1 < args.p.layers) next = Pointers(args.p.layer.table[layer + 1]);
    {
      const LayersProduct& product = plan.products[0];
      for (int unit = qkv.first; unit < qkv.end; unit += product.chunk_units) {
        const int end = min(unit + product.chunk_units, qkv.end);
        writer.Begin(end - unit, product.columns * 2);
        for (int at = unit; at < end;) {
          const bool is_q = at < q_rows;
          const bool is_k = !is_q && at < q_rows + kv_rows;
          const int begin = is_q ? 0 : is_k ? q_rows : q_rows + kv_rows;
          const int rows = min(end, begin + (is_q ? q_rows : kv_rows)) - at;
          const T* const matrix = is_q ? weights.q : is_k ? weights.k : weights.v;
          writer.Put(matrix + int64_t{at - begin} * product.columns, rows);
          at += rows;
        }
      }
    }
    plain(plan.products[1], output, weights.o);
    {
      const LayersProduct& product = plan.products[2];
      for (int unit = gate_up.first; unit < gate_up.end; unit += product.chunk_units) {
        const int units = min(product.chunk_units, gate_up.end - unit);
        writer.Begin(2 * units, product.columns * 2);
        writer.Put(weights.gate + int64_t{unit} * product.columns, units);
        writer.Put(weights.up + int64_t{unit} * product.columns, units);
      }
    }
    plain(plan.products[3], down, weights.down);
  }
}

// ---- The kernel
// ----------------------------------------------------------------------------------

// kMost: fours of the stream's elements that a thread has, at most.
template <typename T, int kDim, int kMost>
__global__ void __launch_bounds__(kLayersThreads + kWarp, 1)
    LayersKernel(const __grid_constant__ LayersArgs args) {
  __shared__ RingShared ring_shared;
  __shared__ __align__(16) float4 red[2][kLayersWarps];
  __shared__ BlockRun runs[4];
  __shared__ __align__(16) LayerParams layer_of[2];
  const LayersPlan& plan = args.plan;
  unsigned char* const shared = DynamicShared();
  unsigned char* const ring = shared + plan.ring_at;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kLayersSlots; ++i) {
      InitCopyBarrier(&ring_shared.full[i], 1);
      InitCopyBarrier(&ring_shared.empty[i], kLayersWarps);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  constexpr int kCopies = kLayersThreads - kAttentionThreads;
  const auto copy_layer = [&](int layer, int thread) {  // by kCopies threads
    const uint32_t* const from = reinterpret_cast<const uint32_t*>(args.p.layer.table + layer);
    uint32_t* const to = reinterpret_cast<uint32_t*>(&layer_of[layer % 2]);
    for (int i = thread; i < static_cast<int>(sizeof(LayerParams) / 4); i += kCopies) {
      to[i] = from[i];
    }
  };
  if (threadIdx.x < kCopies) copy_layer(0, threadIdx.x);
  if (threadIdx.x >= 128 && threadIdx.x < 132) {
    const int i = threadIdx.x - 128;
    const LayersProduct& product = plan.products[i];
    const int first = product.first_unit(blockIdx.x, plan.blocks);
    const int units = product.first_unit(blockIdx.x + 1, plan.blocks) - first;
    runs[i] = {first, units, (units + product.chunk_units - 1) / product.chunk_units};
  }
  __syncthreads();
  if (threadIdx.x >= kLayersThreads) {
    if (threadIdx.x == kLayersThreads) CopyWeights<T>(args, ring_shared, ring);
    WaitForDependency();
    return;
  }
  T* const x = reinterpret_cast<T*>(shared + plan.x_at);
  float* const partials = reinterpret_cast<float*>(shared + plan.partials_at);
  auto& attention = *reinterpret_cast<AttentionShared<T, kDim>*>(shared + plan.attention_at);
  LayersExchange* const exchange = static_cast<LayersExchange*>(args.p.exchange);
  uint64_t* const all_words = reinterpret_cast<uint64_t*>(exchange + 1);
  const int tid = threadIdx.x;
  const int block = blockIdx.x;
  Multiplier<T> multiply(ring_shared, ring, x);

  WaitForDependency();
  Stream<T, kMost> stream(plan.hidden, args.p.epsilon);
  stream.Load(static_cast<const float*>(args.p.hidden.data));
  stream.Ask(nullptr, layer_of[0].attention_norm);
  const uint32_t launches = __ldcg(&exchange->launches);
  const int position = __ldcg(args.p.map.position);
  const int lane = __ldcg(args.p.map.lane);
  for (int i = tid; i < args.p.lanes.groups * kCachedBlocks; i += kLayersThreads) {
    const int index = i % kCachedBlocks;
    if (index >= args.p.lanes.max_blocks) continue;
    attention.blocks[i / kCachedBlocks][index] =
        __ldcg(args.p.lanes.BlockTable(lane, i / kCachedBlocks) + index);
  }
  const bool attends = block < plan.heads * plan.parts && tid < kAttentionThreads;
  const int layers = args.p.layers;
  AttentionItem item;
  item.head = block % plan.heads;
  item.part = block / plan.heads;
  item.kv_head = item.head / plan.heads_a_kv_head;
  item.writes = item.head % plan.heads_a_kv_head == 0;
  item.part_bits = 31 - __clz(plan.parts);
  const int attention_pairs = args.p.layer.q_rows / 2;
  const int activated_pairs = args.p.layer.intermediate / 4;
  const uint64_t* added = nullptr;
  uint32_t tag = launches * static_cast<uint32_t>(layers);
  // One loop over products, for few instructions: a layer's must stay in the caches.
#pragma unroll 1
  for (int step = 0;; ++step) {
    const int l = step >> 2;
    const int stage = step & 3;
    const LayerParams& layer = layer_of[l % 2];
    uint64_t* const words = all_words + (l % 2) * static_cast<int64_t>(plan.words.count);
    if (stage % 2 == 0) {
      if (stage == 0 && l == layers) {
        LaunchDependents();
        if (block != 0) return;
      }
      if (stage == 0 && attends && l < layers) {
        PrefetchPart<T, kDim>(args, layer, position, lane, item, attention);
      }
      stream.Take(added, tag, red[stage / 2], x);
      if (stage == 0) ++tag;
    } else if (stage == 1) {
      stream.Ask(layer.attention_post_norm, layer.mlp_norm);
      TakeValues(words + plan.words.attention, attention_pairs, tag,
                 [&](int i, const TwoWords& two) {
                   Pack<T, 2> pack;
                   pack.at[0] = FromFloat<T>(two.value(0));
                   pack.at[1] = FromFloat<T>(two.value(1));
                   StorePack(pack, x + 2 * i);
                 });
    } else {
      stream.Ask(layer.mlp_post_norm,
                 l + 1 < layers ? layer_of[(l + 1) % 2].attention_norm : args.p.final_norm);
      TakeValues(words + plan.words.activated, activated_pairs, tag,
                 [&](int i, const TwoWords& two) {
                   reinterpret_cast<uint2*>(x)[i] = make_uint2(two.bits(0), two.bits(1));
                 });
    }
    MultiplyBarrier();
    if (l == layers) break;
    const LayersProduct& product = plan.products[stage];
    const BlockRun run = runs[stage];
    const int first = run.first;
    if (stage == 2) {
      // Each warp ends what it has made.
      multiply.template Run<true>(product, run, [&](int chunk, int, int units, float own) {
        const float up = __shfl_down_sync(kAllLanes, own, 16);
        const int unit = first + chunk * product.chunk_units + multiply.g() % 4;
        const bool has = multiply.g() < units;
        float value = 0;
        if (has) {
          value = Activate(layer.activation, own + BiasAt(layer.gate_bias, unit)) *
                  (up + BiasAt(layer.up_bias, unit));
        }
        Pack<T, 2> pack;
        pack.at[0] = FromFloat<T>(value);
        pack.at[1] = FromFloat<T>(__shfl_down_sync(kAllLanes, value, 4));
        if (has && multiply.t() == 0 && multiply.g() % 2 == 0) {
          StoreWord(words + plan.words.activated + unit / 2,
                    *reinterpret_cast<const uint32_t*>(&pack), tag);
        }
      });
      MultiplyBarrier();  // x is free
    } else {
      multiply.template Run<false>(product, run, [&](int chunk, int slice, int rows, float own) {
        if (multiply.t() != 0 || multiply.g() >= rows) return;
        partials[(chunk * product.chunk_units + multiply.g()) * kLayersPartials + slice] = own;
      });
      MultiplyBarrier();
      const float* const bias = stage == 1 ? layer.o_bias : stage == 3 ? layer.down_bias : nullptr;
      uint64_t* const to = words + (stage == 0   ? plan.words.qkv
                                    : stage == 1 ? plan.words.output
                                                 : plan.words.down);
      for (int i = tid; i < run.units; i += kLayersThreads) {
        StoreWord(to + first + i,
                  SumOfSlices(partials, i, product.slices) + BiasAt(bias, first + i), tag);
      }
      added = to;
    }
    if (stage != 0) continue;
    if (l + 1 < layers && tid >= kAttentionThreads) {
      copy_layer(l + 1, tid - kAttentionThreads);
      if (block == l % plan.blocks) {
        const LayerParams& next = args.p.layer.table[l + 1];
        const float* const norms[4] = {next.attention_norm, next.attention_post_norm, next.mlp_norm,
                                       next.mlp_post_norm};
        for (const float* const norm : norms) {
          for (int i = (tid - kAttentionThreads) * 32; norm != nullptr && i < plan.hidden;
               i += kCopies * 32) {
            PrefetchL2(norm + i);
          }
        }
      }
    }
    if (attends) AttendPart<T, kDim>(args, layer, position, lane, item, words, tag, attention);
  }
  for (int i = tid; i < plan.hidden / 2; i += kLayersThreads) {
    reinterpret_cast<uint32_t*>(args.p.normed.data)[i] = reinterpret_cast<const uint32_t*>(x)[i];
  }
  if (tid == 0) exchange->launches = launches + 1;
}

template <typename T, int kDim>
LayersPlan PlanOf(const DecoderLayersParams& p, const LayersTuning& tuning, int multiprocessors) {
  const LayerRef& layer = p.layer;
  return PlanLayers(
      {p.hidden.width, layer.q_rows, layer.kv_rows, layer.head_dim, layer.intermediate}, tuning,
      multiprocessors, sizeof(AttentionShared<T, kDim>));
}

template <typename T, int kDim, int kMost>
cudaError_t Launch(const LayersArgs& args, const LaunchContext& context) {
  const auto kernel = LayersKernel<T, kDim, kMost>;
  const size_t bytes = static_cast<size_t>(args.plan.shared_bytes);
  if (const cudaError_t error = AllowShared(kernel, bytes); error != cudaSuccess) return error;
  return LaunchKernel(kernel, dim3(static_cast<unsigned>(args.plan.blocks)),
                      dim3(kLayersThreads + kWarp), bytes, context, args);
}

template <typename T, int kDim>
cudaError_t Launch(const DecoderLayersParams& p, const LaunchContext& context,
                   const LayersTuning& tuning) {
  const LayersArgs args = {p, PlanOf<T, kDim>(p, tuning, context.multiprocessors)};
  if (!args.plan.fits) return cudaErrorNotSupported;
  return args.plan.hidden <= 4 * kLayersThreads ? Launch<T, kDim, 1>(args, context)
         : args.plan.hidden <= 8 * kLayersThreads
             ? Launch<T, kDim, 2>(args, context)
             : Launch<T, kDim, static_cast<int>(CeilDiv(kLayersMostHidden / 4, kLayersThreads))>(
                   args, context);
}

template <typename Body>
auto WithDim(int dim, const Body& body) {
  switch (dim) {
    case 64:
      return body(std::integral_constant<int, 64>());
    case 128:
      return body(std::integral_constant<int, 128>());
    default:
      return body(std::integral_constant<int, 256>());
  }
}

}  // namespace

size_t DecoderLayersExchange(const DecoderLayersParams& p, int multiprocessors) {
  const LayersPlan plan = WithDim(p.layer.head_dim, [&](auto dim) {
    return PlanOf<__nv_bfloat16, dim>(p, {}, multiprocessors);
  });
  if (!plan.fits) return 0;
  return sizeof(LayersExchange) + 2 * static_cast<size_t>(plan.words.count) * sizeof(uint64_t);
}

cudaError_t LaunchDecoderLayers(const DecoderLayersParams& p, const LaunchContext& context,
                                const LayersTuning& tuning) {
  return WithDim(p.layer.head_dim,
                 [&](auto dim) { return Launch<__nv_bfloat16, dim>(p, context, tuning); });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
