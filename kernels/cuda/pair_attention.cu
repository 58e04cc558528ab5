// Attention of a decode step of many short rows: as many pairs of a row and a KV head as warps find
// room, or more. What such a step waits for in cluster_attention.cu is not memory but the way of a
// block, which every row goes again: its table, its slots, the ends of q, k and v, barriers, merging.
// Here all pairs are under way at once, each by one warp that waits for no other, or by a few that
// meet once, at the end.
//
// A warp has the slots' tiles (tile_sums.cuh) come through a ring of its own (cluster_ring.cuh). It
// ends the query heads for itself, in registers: a lane loads of a head's bare products what it has of
// the operand, of which the elements that turn together are both its own. The warp that has the row's
// own slot also ends k and v, for the cache and for itself. All that earlier steps have written is
// asked for before the wait, while the products are still made (cluster_attention.cu); the ends are
// made while it arrives: the rings of a multiprocessor hold what memory gives it in 5 us.
//
// Bytes: each key and value once, q and out once. Grid: pairs * warps of a pair / 4 blocks of 128
// threads. Shared memory: 52 KiB, of 256 dimensions 104: 12 or 24 KiB of ring a warp, a head in
// float32, and a slot's k and v.
//
// Assumes: head_dim 64, 128 or 256; 16 bits or float8; blocks of a multiple of 16 slots, which begin
// at multiples of 16 bytes; more than two query heads a KV head.
//
// Measured on an H200 (tests/bench/attention_bench.cu), 256 rows of 148 slots: llama3.1-8b 43.0 us a
// layer, 3,613 GB/s, 80% of the stream; llama3.2-1b 22.7, 3,414; gemma3-1b 14.5, 2,672. More in
// tests/bench/results/decode-log.md, attention of many short rows.
#include "kernels/cuda/pair_attention.h"

#if SIROCCO_HOPPER
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/cluster_ends.cuh"
#include "kernels/cuda/cluster_item.cuh"
#include "kernels/cuda/cluster_merge.cuh"
#include "kernels/cuda/cluster_ring.cuh"
#include "kernels/cuda/head_end.cuh"
#include "kernels/cuda/launch.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// Of a block. Small blocks end one by one, each making room for one of the next kernel: eight warps
// took as long with 256 rows of 148 slots, and up to 0.9 us longer with fewer or more rows.
constexpr int kPairWarps = 4;

struct PairArgs {
  DecodeRows p;
  int32_t kv_heads;
  int32_t heads_a_kv_head;
  int32_t passes;      // groups of query heads of a KV head
  int32_t pairs;       // of a row and a group
  int32_t share_bits;  // of the warps of a pair
  // By the pairs of a row and by the slots of a block: a division in the kernel would keep back all
  // that is asked for after it.
  DividedBy row_of, block_of;
  // The layer as the host has it, without which PairAttentionTakes no rows: once other blocks' rings
  // are on their way, a load takes 1 to 3 us, and where the slots are waits for it.
  LayerParams layer;
};

// What a warp ends for itself.
template <typename Kv, int kDim>
struct WarpEnds {
  // Of the row's own slot, as the cache has them; in float8 each with its scale behind it.
  alignas(16) Kv kv[2][kDim + (kIsScaled<Kv> ? 16 : 0)];
  alignas(16) float head[kDim];
};

template <typename Kv, int kQueries, int kDim>
struct PairShared {
  WarpMemory<Kv, kQueries, kDim, Tiling::kRing> warps[kPairWarps];
  WarpEnds<Kv, kDim> ends[kPairWarps];
};

// The ends of the heads of a pair, by one warp. All of the layer is loaded before the wait, after
// which one thing after the other would be waited for.
template <typename Kv, int kQueries, int kDim>
class PairEnds {
 public:
  using Ring = RingWarp<Kv, kQueries, kDim>;

  __device__ __forceinline__ PairEnds(const PairArgs& args, const ClusterItem& item, int position,
                                      bool has_own)
      : ref_(args.p.layer),
        item_(item),
        row_(static_cast<const float*>(args.p.qkv.data) + int64_t{item.row} * args.p.qkv.width),
        turn_(args.layer.rotary.cos_sin + int64_t{position} * args.layer.rotary.dim),
        q_bias_(args.layer.q_bias),
        q_norm_(args.layer.q_norm),
        turned_(args.layer.rotary.dim),
        epsilon_(args.layer.norm_epsilon) {
    if constexpr (kEarlyTurn) {
      if (turned_ == kDim) LoadTurn(turns_);
    }
    if (!has_own) return;
    const LayerParams& layer = args.layer;
    const int own = item.kv_head * kDim;
    k_ = {layer.k_bias != nullptr ? layer.k_bias + own : nullptr, layer.k_norm, turn_, turned_,
          epsilon_};
    v_ = {layer.v_bias != nullptr ? layer.v_bias + own : nullptr, nullptr, turn_, 0, epsilon_};
  }

  // x: of the lane's query head, as Ring::TakeQueries takes it. other: [kDim] of shared memory.
  __device__ __forceinline__ void OfQueries(float* other, float2 (&x)[Ring::kTwos]) const {
    const int head = min(Ring::Query(), item_.head_count - 1);
    if (turned_ != 0 && turned_ != kDim) return TurnParts(head, other, x);
    const int64_t own = int64_t{item_.first_head + head} * kDim;
    LoadTwos(row_ + own, x);
    if (q_bias_ != nullptr) {
      float2 bias[Ring::kTwos];
      LoadTwos(q_bias_ + own, bias);
#pragma unroll
      for (int i = 0; i < Ring::kTwos; ++i) {
        x[i].x += bias[i].x;
        x[i].y += bias[i].y;
      }
    }
    if (q_norm_ != nullptr) {
      float2 weight[Ring::kTwos];
      LoadTwos(q_norm_, weight);
      float squares = 0;
#pragma unroll
      for (int i = 0; i < Ring::kTwos; ++i) {
        squares = fmaf(x[i].x, x[i].x, squares);
        squares = fmaf(x[i].y, x[i].y, squares);
      }
      squares += __shfl_xor_sync(kAllLanes, squares, 1);
      squares += __shfl_xor_sync(kAllLanes, squares, 2);
      const float inverse = rsqrtf(squares / kDim + epsilon_);
#pragma unroll
      for (int i = 0; i < Ring::kTwos; ++i) {
        x[i].x = __fmul_rn(x[i].x, __fmul_rn(inverse, weight[i].x));
        x[i].y = __fmul_rn(x[i].y, __fmul_rn(inverse, weight[i].y));
      }
    }
    if (turned_ == 0) return;
    Turn late;
    if constexpr (!kEarlyTurn) LoadTurn(late);
    const Turn& turn = kEarlyTurn ? turns_ : late;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      TurnTwo(turn.cosines[i].x, turn.sines[i].x, x[i].x, x[i + kHalf].x);
      TurnTwo(turn.cosines[i].y, turn.sines[i].y, x[i].y, x[i + kHalf].y);
    }
  }

  using Slot = typename HeadEnd<kDim>::Half[2][2];  // of k and of v, of the lane

  // k and v of the row's own slot, bare.
  __device__ __forceinline__ void LoadSlot(Slot& x) const {
#pragma unroll
    for (int is_v = 0; is_v < 2; ++is_v) {
      Head::Load(row_ + ref_.q_rows + (is_v ? ref_.kv_rows : 0) + item_.kv_head * kDim, x[is_v]);
    }
  }
  // Of LoadSlot's k and v: to `ends`, visible to the whole warp, and to the cache at `slot` (of k)
  // and, in float8, `scales`.
  __device__ __forceinline__ void OfSlot(Kv* slot, int64_t value_offset,
                                         [[maybe_unused]] uint8_t* scales, Slot& bare,
                                         WarpEnds<Kv, kDim>& ends) const {
#pragma unroll
    for (int is_v = 0; is_v < 2; ++is_v) {
      typename Head::Half(&x)[2] = bare[is_v];
      if (is_v) {
        v_.End(v_.LoadConstants(), ends.head, x);
      } else {
        k_.End(k_.LoadConstants(), ends.head, x);
      }
      if constexpr (kIsScaled<Kv>) {
        const uint8_t scale = ScaleHead<kDim>(x);
        ends.kv[is_v][kDim].bits = scale;
        if (item_.pass == 0) scales[is_v] = scale;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int begin = Head::Begin(half);
        StoreFloats<Kv, Head::kVec>(x[half].at, &ends.kv[is_v][begin]);
        if (item_.pass == 0) {
          StoreFloats<Kv, Head::kVec>(x[half].at, slot + (is_v ? value_offset : 0) + begin);
        }
      }
    }
    __syncwarp();
  }

 private:
  using Head = HeadEnd<kDim>;
  static constexpr int kHalf = Ring::kTwos / 2;
  struct Turn {  // of the lane's elements
    float2 cosines[kHalf], sines[kHalf];
  };
  static constexpr bool kEarlyTurn = kDim <= 128;  // more has no registers

  __device__ __forceinline__ void LoadTurn(Turn& to) const {
    const float* const turn = turn_ + Ring::FirstTwo();
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      to.cosines[i] = LoadAt(turn + Ring::TwoAt(i));
      to.sines[i] = LoadAt(turn + kDim / 2 + Ring::TwoAt(i));
    }
  }
  __device__ __forceinline__ static float2 LoadAt(const float* from) {
    return *reinterpret_cast<const float2*>(from);
  }
  // from: the head's first element.
  __device__ __forceinline__ static void LoadTwos(const float* from, float2 (&x)[Ring::kTwos]) {
    from += Ring::FirstTwo();
#pragma unroll
    for (int i = 0; i < Ring::kTwos; ++i) x[i] = LoadAt(from + Ring::TwoAt(i));
  }
  // Where elements that turn together are different lanes': a head after the other.
  __device__ __forceinline__ void TurnParts(int own, float* other,
                                            float2 (&x)[Ring::kTwos]) const {
#pragma unroll 1
    for (int head = 0; head < item_.head_count; ++head) {
      const int64_t at = int64_t{item_.first_head + head} * kDim;
      typename Head::Half ended[2];
      const Head end = {q_bias_ != nullptr ? q_bias_ + at : nullptr, q_norm_, turn_, turned_,
                        epsilon_};
      end(row_ + at, other, ended);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        StoreFloats<float, Head::kVec>(ended[half].at, other + Head::Begin(half));
      }
      __syncwarp();
      if (head == own) LoadTwos(other, x);
      __syncwarp();
    }
  }

  const LayerRef& ref_;
  const ClusterItem& item_;
  const float* row_;   // the row's bare products
  const float* turn_;  // of the position
  const float *q_bias_, *q_norm_;
  int turned_;
  float epsilon_;
  Turn turns_;
  Head k_, v_;  // of the row's own slot
};

// What the warp has to do, but for the slots; without query heads: nothing. A shuffle says that it is
// the same in all lanes, and makes it anew where it is asked for again: kept, it would take registers
// that the tiles need.
template <int kQueries, int kDim>
__device__ __forceinline__ ClusterItem PairItem(const PairArgs& args) {
  const int warp = WarpOfBlock<kPairWarps>().warp;
  ClusterItem item = {};
  item.pair = (static_cast<int>(blockIdx.x) * kPairWarps + warp) >> args.share_bits;
  if (item.pair >= args.pairs) return item;
  const int groups = args.kv_heads * args.passes;
  item.row = args.row_of(item.pair);
  const int group = item.pair - item.row * groups;
  item.kv_head = args.passes > 1 ? group / args.passes : group;
  item.pass = group - item.kv_head * args.passes;
  item.head_count = min(kQueries, args.heads_a_kv_head - item.pass * kQueries);
  item.first_head = item.kv_head * args.heads_a_kv_head + item.pass * kQueries;
  item.out = int64_t{item.row} * args.p.out.width + int64_t{item.first_head} * kDim;
  return item;
}
// Among those of its pair.
__device__ __forceinline__ WarpOfSlots WarpOfPair(const PairArgs& args) {
  const int warps = 1 << args.share_bits;
  return {WarpOfBlock<kPairWarps>().warp & (warps - 1), warps};
}

// What a pair's warps have left, by all of them.
template <typename Kv, int kQueries, int kDim>
__device__ __forceinline__ void MergePair(const PairArgs& args,
                                          const PairShared<Kv, kQueries, kDim>& shared) {
  constexpr int kQuads = kDim / 4;
  const ClusterItem item = PairItem<kQueries, kDim>(args);
  if (item.head_count == 0) return;
  const WarpOfSlots own = WarpOfPair(args);
  const auto* const first = shared.warps + (static_cast<int>(threadIdx.x) / kWarp - own.warp);
  const int thread = own.warp * kWarp + static_cast<int>(threadIdx.x) % kWarp;
  if (args.share_bits == 0) {  // the most usual: all loads at once
    const auto& part = first->part;
#pragma unroll
    for (int i = 0; i < kQueries * kQuads; i += kWarp) {
      const int head = (i + thread) / kQuads;
      const int quad = (i + thread) % kQuads;
      StoreOut<kDim>(args.p.out, item, head, quad, part.values[head][quad],
                     part.statistics[head].y);
    }
    return;
  }
#pragma unroll 1
  for (int i = thread; i < kQueries * kQuads; i += own.warps * kWarp) {
    const int head = i / kQuads;
    const int quad = i % kQuads;
    float2 merged;
    const float4 total = MergeParts<kPairWarps>(
        own.warps, [&](int w) { return first[w].part.statistics[head]; },
        [&](int w) { return first[w].part.values[head][quad]; }, merged);
    StoreOut<kDim>(args.p.out, item, head, quad, total, merged.y);
  }
}

// Blocks of a multiprocessor: registers for sixteen warps, of 256 dimensions or more than four queries
// for eight.
template <int kQueries, int kLanes>
inline constexpr int kPairBlocks = kQueries > 4 || kLanes > 16 ? 2 : 4;

// kEnds: q, k and v come as bare products.
template <bool kEnds, typename Kv, int kQueries, int kLanes>
__global__ void __launch_bounds__(kPairWarps* kWarp, (kPairBlocks<kQueries, kLanes>))
    PairAttentionKernel(const __grid_constant__ PairArgs args) {
  constexpr int kDim = 8 * kLanes;
  using Shared = PairShared<Kv, kQueries, kDim>;
  using Ring = RingWarp<Kv, kQueries, kDim>;
  Shared& shared = *reinterpret_cast<Shared*>(DynamicShared());
  if (!kEnds) {  // the kernel before writes the cache
    WaitForDependency();
    LaunchDependents();
  }
  // Not by WarpOfBlock: see RingWarp.
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (ClusterItem item = PairItem<kQueries, kDim>(args); item.head_count > 0) {
    const int position = __ldcg(args.p.map.position + item.row);
    const int lane_of_row = __ldcg(args.p.map.lane + item.row);
    const AttentionShape& shape = args.layer.attention;
    const KvLayer& kv = args.layer.kv;
    const int32_t* const block_table = args.p.lanes.BlockTable(lane_of_row, kv.group);
    item.slots = {FirstSlot(shape, position), position + 1};
    WarpEnds<Kv, kDim>& ends = shared.ends[warp];
    Ring ring(kv, block_table, item.kv_head, item.slots, WarpOfPair(args), args.block_of,
              shared.warps[warp].ring);
    if constexpr (kEnds) {
      using Ends = PairEnds<Kv, kQueries, kDim>;
      const bool has_own = ring.Has(position);
      const Ends of_heads(args, item, position, has_own);
      const int block = __ldcg(block_table + args.block_of(position));
      WaitForDependency();
      LaunchDependents();
      typename Ends::Slot bare;
      if (has_own) of_heads.LoadSlot(bare);
      float2 q[Ring::kTwos];
      of_heads.OfQueries(ends.head, q);
      ring.TakeQueries(shape, [&](int i) { return q[i]; });
      if (has_own) {
        const ClusterItem of_slot = PairItem<kQueries, kDim>(args);
        uint8_t* scales = nullptr;
        if constexpr (kIsScaled<Kv>) {
          scales = static_cast<uint8_t*>(kv.data) +
                   KvScaleOffset(kv, block, of_slot.kv_head, position % kv.block_size);
        }
        of_heads.OfSlot(
            static_cast<Kv*>(kv.data) + OffsetInBlock(kv, block, of_slot.kv_head, position),
            kv.value_offset, scales, bare, ends);
      }
    } else {
      const int64_t first =
          item.out + min(Ring::Query(), item.head_count - 1) * kDim + Ring::FirstTwo();
      ring.TakeQueries(shape,
                       [&](int i) { return LoadTwo(args.p.q, first + Ring::TwoAt(i)); });
    }
    ring.Run(shape, kEnds ? position : -1, ends.kv);
    ring.Store(shared.warps[warp].part);
  } else if (kEnds) {
    WaitForDependency();
  }
  if (args.share_bits == 0) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  MergePair<Kv, kQueries, kDim>(args, shared);
}

// ---- On the host -------------------------------------------------------------------------------

// Query heads of a warp: rows with fewer a KV head are worked on otherwise.
constexpr int kLeastHeads = 3;  // of a KV head
// Slots that a warp may have to take one after the other, as far as the host knows: twelve KiB under
// way are some 10 GB/s, and the longest row should not take longer than all rows together.
constexpr int64_t kMostWarpSlots = 1024;

struct PairLayout {
  int head_dim;
  int queries;   // of a warp
  int resident;  // warps of a multiprocessor
  PairArgs args;
};

// The layer's cache, as far as the host knows it.
const KvLayer* KvOf(const DecodeRows& p) {
  if (p.layer.table == nullptr) return &p.kv;
  return p.layer.host != nullptr ? &p.layer.host->kv : nullptr;
}

PairLayout PairLayoutOf(const DecodeRows& p, const KvLayer& kv, int multiprocessors) {
  const AttentionHeads heads = HeadsOf(p);
  PairLayout layout = {};
  layout.head_dim = heads.head_dim;
  layout.queries = heads.heads_a_kv_head <= 4 ? 4 : 8;
  layout.resident = kPairWarps * (heads.head_dim == 256 || layout.queries > 4 ? 2 : 4);
  PairArgs& args = layout.args;
  args.p = p;
  if (p.layer.table != nullptr) {
    args.layer = *p.layer.host;
  } else {
    args.layer.attention = p.shape;
    args.layer.kv = p.kv;
  }
  args.kv_heads = heads.kv_heads;
  args.heads_a_kv_head = heads.heads_a_kv_head;
  args.passes = static_cast<int32_t>(CeilDiv(heads.heads_a_kv_head, layout.queries));
  args.pairs = p.rows * args.kv_heads * args.passes;
  args.row_of = DividedBy(args.kv_heads * args.passes);
  args.block_of = DividedBy(kv.block_size);
  // As many warps a pair as are there at once.
  const int64_t room = int64_t{layout.resident} * multiprocessors;
  while ((2 << args.share_bits) <= kPairWarps &&
         (int64_t{args.pairs} << (args.share_bits + 1)) <= room) {
    ++args.share_bits;
  }
  return layout;
}

template <bool kEnds, typename Kv, int kQueries, int kLanes>
cudaError_t Launch(const PairLayout& layout, const LaunchContext& context) {
  constexpr size_t kShared = sizeof(PairShared<Kv, kQueries, 8 * kLanes>);
  const auto kernel = PairAttentionKernel<kEnds, Kv, kQueries, kLanes>;
  if (const cudaError_t error = AllowShared(kernel, kShared); error != cudaSuccess) return error;
  const int64_t warps = int64_t{layout.args.pairs} << layout.args.share_bits;
  return LaunchClusters(kernel, dim3(static_cast<unsigned>(CeilDiv(warps, kPairWarps))),
                        dim3(kPairWarps * kWarp), 1, kShared, context, layout.args);
}

template <bool kEnds, typename Kv, int kQueries>
cudaError_t Launch(const PairLayout& layout, const LaunchContext& context) {
  switch (layout.head_dim) {
    case 64:
      return Launch<kEnds, Kv, kQueries, 8>(layout, context);
    case 128:
      return Launch<kEnds, Kv, kQueries, 16>(layout, context);
    default:
      break;
  }
  return Launch<kEnds, Kv, kQueries, 32>(layout, context);
}

template <bool kEnds, typename Kv>
cudaError_t Launch(const PairLayout& layout, const LaunchContext& context) {
  return layout.queries == 4 ? Launch<kEnds, Kv, 4>(layout, context)
                             : Launch<kEnds, Kv, 8>(layout, context);
}

template <bool kEnds>
cudaError_t Launch(const PairLayout& layout, const LaunchContext& context) {
  switch (KvTypeOf(layout.args.p)) {
    case DType::kBFloat16:
      return Launch<kEnds, __nv_bfloat16>(layout, context);
    case DType::kFloat16:
      return Launch<kEnds, __half>(layout, context);
    case DType::kFloat8:
      return Launch<kEnds, Float8>(layout, context);
    default:  // float32: PairAttentionTakes
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace

bool PairAttentionTakes(const DecodeRows& p, int multiprocessors) {
  const KvLayer* const kv = KvOf(p);
  if (kv == nullptr || kv->block_size <= 0 || kv->block_size % kTileSlots != 0) return false;
  const PairLayout layout = PairLayoutOf(p, *kv, multiprocessors);
  // Fewer pairs are a block's or a cluster's each.
  const int64_t least = (layout.head_dim == 256 ? 1 : 2) * int64_t{multiprocessors};
  return KvTypeOf(p) != DType::kFloat32 && layout.args.heads_a_kv_head >= kLeastHeads &&
         layout.args.pairs > least && p.lanes.max_length <= kMostWarpSlots << layout.args.share_bits;
}

cudaError_t LaunchPairAttention(const DecodeRows& p, const LaunchContext& context) {
  const PairLayout layout = PairLayoutOf(p, *KvOf(p), context.multiprocessors);
  return p.qkv.data != nullptr ? Launch<true>(layout, context) : Launch<false>(layout, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
