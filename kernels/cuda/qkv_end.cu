// The ends of q, k and v as a kernel of their own, where attention does not make them: bias, the
// heads' norms, the turn; then q to `q`, k and v to their slots of the cache.
//
// A head of a row is a few lanes', which hold all of it: a lane has four elements of the part that
// is turned and the four that they are turned with. All loads of a head are under way at once.
//
// Bytes: the sums once, q, k and v once; rotary tables, norms and biases from caches. Grid:
// kThreads / lanes a head heads a block, through all heads of the first row, then of the next. No
// shared memory. Of many rows of models that have neither biases nor norms of heads, a few lanes do
// some heads. Heads that cannot be cut by fours, are not aligned, or whose layer the host does
// not know, take a plain kernel: a warp a head, in passes over its sums.
#include <type_traits>

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/head_end.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ordered.h"
#include "kernels/cuda/rows.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kThreads = 128;
constexpr int kWide = 4;  // elements of a pack

struct WideQkvEnd {
  RowMap map;
  Lanes lanes;
  const float* qkv;     // [R, heads * head_dim]
  const float* q_bias;  // [heads * head_dim] or null
  const float* k_bias;
  const float* v_bias;
  const float* q_norm;  // [head_dim] or null
  const float* k_norm;
  RotaryTable rotary;
  KvLayer kv;
  float epsilon;
  void* q_out;  // [R, q_heads * head_dim]
  int32_t q_heads;
  int32_t heads;  // of q, k and v
  int32_t rows;
};

// Where packs of a head stand that belong together: the second, `half` elements on, is what the
// first is turned with. What is not turned is paired too, to be moved alike.
struct PackPair {
  int first, second;  // elements; negative: none
  bool turned;

  __device__ __forceinline__ PackPair(int pair, int turned_elements, int head_dim) {
    const int half = turned_elements / 2;
    const int pairs = half / kWide;
    turned = pair < pairs;
    if (turned) {
      first = pair * kWide;
      second = first + half;
      return;
    }
    const int rest = (head_dim - turned_elements) / kWide;  // packs
    const int firsts = (rest + 1) / 2;
    const int i = pair - pairs;
    first = i < firsts ? turned_elements + i * kWide : -1;
    second = i < firsts && firsts + i < rest ? turned_elements + (firsts + i) * kWide : -1;
  }
};

template <int kLanes>
__device__ __forceinline__ float GroupSum(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, offset);
  }
  return x;
}

template <int kLanes>
__device__ __forceinline__ uint32_t GroupMax(uint32_t x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    x = max(x, __shfl_xor_sync(kAllLanes, x, offset));
  }
  return x;
}

// What a lane has beside the head's elements are zeros.
template <int kPairs>
__device__ __forceinline__ uint32_t LargestOf(const float (&x)[kPairs][2][kWide]) {
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kPairs * 2 * kWide; ++i) {
    largest = max(largest, MagnitudeBits(x[i / (2 * kWide)][i / kWide % 2][i % kWide]));
  }
  return largest;
}

__device__ __forceinline__ void LoadAt(const float* from, int at, float (&to)[kWide]) {
  if (from != nullptr && at >= 0) {
    LoadFloats<float, kWide>(from + at, to);
    return;
  }
#pragma unroll
  for (int i = 0; i < kWide; ++i) to[i] = 0;
}

__device__ __forceinline__ void StorePackAs(DType dtype, void* to, int64_t at,
                                            const float (&values)[kWide]) {
  switch (dtype) {
    case DType::kBFloat16:
      StoreFloats<__nv_bfloat16, kWide>(values, static_cast<__nv_bfloat16*>(to) + at);
      break;
    case DType::kFloat16:
      StoreFloats<__half, kWide>(values, static_cast<__half*>(to) + at);
      break;
    default:  // float32
      StoreFloats<float, kWide>(values, static_cast<float*>(to) + at);
      break;
  }
}

// kLanes: of a head, a power of two; kPairs: of packs that each of them has. kScaled: the cache is
// in float8.
template <typename T, int kLanes, int kPairs, bool kScaled>
__global__ void __launch_bounds__(kThreads) WideQkvEndKernel(const __grid_constant__ WideQkvEnd p) {
  // Lanes beyond the last head do as it does, and store nothing: sums are whole warps'.
  const int item = static_cast<int>(blockIdx.x * (kThreads / kLanes) + threadIdx.x / kLanes);
  const bool exists = item < p.rows * p.heads;
  const int row = exists ? item / p.heads : p.rows - 1;
  const int head = exists ? item % p.heads : p.heads - 1;
  const int head_dim = p.kv.head_dim;
  const bool is_q = head < p.q_heads;
  const bool is_v = head >= p.q_heads + p.kv.kv_heads;
  const int own = is_q ? head : is_v ? head - p.q_heads - p.kv.kv_heads : head - p.q_heads;
  const float* const bias = is_q ? p.q_bias : is_v ? p.v_bias : p.k_bias;
  const float* const norm = is_q ? p.q_norm : is_v ? nullptr : p.k_norm;
  const int turned = is_v ? 0 : p.rotary.dim;

  float x[kPairs][2][kWide], weight[kPairs][2][kWide], added[kPairs][2][kWide];
  float cosine[kPairs][kWide], sine[kPairs][kWide];
  const auto pair_of = [&](int j) {
    return PackPair(static_cast<int>(threadIdx.x) % kLanes + j * kLanes, turned, head_dim);
  };
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const PackPair pair = pair_of(j);
    const float* const own_bias = bias != nullptr ? bias + own * head_dim : nullptr;
    LoadAt(own_bias, pair.first, added[j][0]);
    LoadAt(own_bias, pair.second, added[j][1]);
    LoadAt(norm, pair.first, weight[j][0]);
    LoadAt(norm, pair.second, weight[j][1]);
  }

  WaitForDependency();
  LaunchDependents();
  const int position = p.map.position[row];
  const int lane = is_q ? 0 : p.map.lane[row];
  const float* const from = p.qkv + (int64_t{row} * p.heads + head) * head_dim;
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const PackPair pair = pair_of(j);
    LoadAt(from, pair.first, x[j][0]);
    LoadAt(from, pair.second, x[j][1]);
  }
  const float* const angles = p.rotary.cos_sin + int64_t{position} * p.rotary.dim;
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const PackPair pair = pair_of(j);
    LoadAt(angles, pair.turned ? pair.first : -1, cosine[j]);
    LoadAt(angles, pair.turned ? pair.second : -1, sine[j]);
  }
  const int block = is_q ? 0 : p.lanes.BlockTable(lane, p.kv.group)[position / p.kv.block_size];

  float squares = 0;
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
#pragma unroll
    for (int i = 0; i < 2 * kWide; ++i) {
      float& value = x[j][i / kWide][i % kWide];
      value += added[j][i / kWide][i % kWide];
      squares += value * value;
    }
  }
  // All lanes of the warp are here; some may be of a head that has no norm.
  const float inverse = 1.0f / sqrtf(GroupSum<kLanes>(squares) / head_dim + p.epsilon);

  void* const to = is_q ? p.q_out : p.kv.data;
  const int64_t at =
      is_q ? (int64_t{row} * p.q_heads + own) * head_dim
           : OffsetInBlock(p.kv, block, own, position) + (is_v ? p.kv.value_offset : 0);
  const auto store = [&](int j, const PackPair& pair) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int element = i == 0 ? pair.first : pair.second;
      if (!exists || element < 0) continue;
      if (is_q) {
        StoreFloats<T, kWide>(x[j][i], static_cast<T*>(to) + at + element);
      } else if constexpr (kScaled) {
        StoreFloats<Float8, kWide>(x[j][i], static_cast<Float8*>(to) + at + element);
      } else {
        StorePackAs(p.kv.dtype, to, at + element, x[j][i]);
      }
    }
  };
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const PackPair pair = pair_of(j);
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      float first = x[j][0][i];
      float second = x[j][1][i];
      if (norm != nullptr) {
        first *= inverse * weight[j][0][i];
        second *= inverse * weight[j][1][i];
      }
      x[j][0][i] = pair.turned ? first * cosine[j][i] - second * sine[j][i] : first;
      x[j][1][i] = pair.turned ? second * cosine[j][i] + first * sine[j][i] : second;
    }
    if constexpr (!kScaled) store(j, pair);
  }
  if constexpr (kScaled) {
    const uint8_t scale = KvScaleFor(GroupMax<kLanes>(LargestOf(x)));
    if (exists && !is_q && threadIdx.x % kLanes == 0) {
      StoreScale(p.kv, block, own, position, is_v, scale);
    }
    const float factor = is_q ? 1.0f : KvScaleInverse(scale);
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
#pragma unroll
      for (int i = 0; i < 2 * kWide; ++i) x[j][i / kWide][i % kWide] *= factor;
      store(j, pair_of(j));
    }
  }
}

// Heads without biases and norms that are turned whole, or not at all, as values: kHeads of a row
// at once, which share its position and its angles, eight elements of each a lane. What waits for
// memory one after the other here, the position, angles and the block, is waited for once.
constexpr int kTurnedHeads = 4;

template <typename T, int kLanes>
__global__ void __launch_bounds__(kThreads) TurnHeadsKernel(const __grid_constant__ WideQkvEnd p) {
  constexpr int kHalf = kLanes * kWide;
  constexpr int kHeadDim = 2 * kHalf;
  const int groups = p.heads / kTurnedHeads;  // of a row
  const int item = static_cast<int>(blockIdx.x * (kThreads / kLanes) + threadIdx.x / kLanes);
  WaitForDependency();
  LaunchDependents();
  if (item >= p.rows * groups) return;
  const int row = item / groups;
  const int head = item % groups * kTurnedHeads;
  const bool is_q = head < p.q_heads;
  const bool is_v = head >= p.q_heads + p.kv.kv_heads;
  const int element = static_cast<int>(threadIdx.x) % kLanes * kWide;
  const int position = p.map.position[row];
  const int lane = is_q ? 0 : p.map.lane[row];
  const float* const from = p.qkv + (int64_t{row} * p.heads + head) * kHeadDim + element;
  float x[kTurnedHeads][2][kWide];
#pragma unroll
  for (int h = 0; h < kTurnedHeads; ++h) {
    LoadFloats<float, kWide>(from + h * kHeadDim, x[h][0]);
    LoadFloats<float, kWide>(from + h * kHeadDim + kHalf, x[h][1]);
  }
  if (!is_v) {
    float cosine[kWide], sine[kWide];
    const float* const angles = p.rotary.cos_sin + int64_t{position} * kHeadDim + element;
    LoadFloats<float, kWide>(angles, cosine);
    LoadFloats<float, kWide>(angles + kHalf, sine);
#pragma unroll
    for (int h = 0; h < kTurnedHeads; ++h) {
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        const float first = x[h][0][i];
        const float second = x[h][1][i];
        x[h][0][i] = first * cosine[i] - second * sine[i];
        x[h][1][i] = second * cosine[i] + first * sine[i];
      }
    }
  }
  const auto store = [&](T* to, int64_t stride) {
#pragma unroll
    for (int h = 0; h < kTurnedHeads; ++h) {
      StoreFloats<T, kWide>(x[h][0], to + h * stride);
      StoreFloats<T, kWide>(x[h][1], to + h * stride + kHalf);
    }
  };
  if (is_q) {
    store(static_cast<T*>(p.q_out) + (int64_t{row} * p.q_heads + head) * kHeadDim + element,
          kHeadDim);
    return;
  }
  const int own = head - p.q_heads - (is_v ? p.kv.kv_heads : 0);
  const int block = p.lanes.BlockTable(lane, p.kv.group)[position / p.kv.block_size];
  store(static_cast<T*>(p.kv.data) + OffsetInBlock(p.kv, block, own, position) +
            (is_v ? p.kv.value_offset : 0) + element,
        int64_t{p.kv.block_size} * kHeadDim);
}

// A warp a head, element by element, several times through its sums.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    PlainQkvEndKernel(const __grid_constant__ QkvEndParams p) {
  const LayerParams& layer = LayerOf(p.layer);
  const int head_dim = p.layer.head_dim;
  const int heads = p.qkv.width / head_dim;
  const int item = static_cast<int>((blockIdx.x * kThreads + threadIdx.x) / kWarp);
  WaitForDependency();
  LaunchDependents();
  if (item >= p.rows * heads) return;
  const int row = item / heads;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const HeadPlace place(p.layer, item % heads);
  float* const sums = static_cast<float*>(p.qkv.data) + int64_t{item} * head_dim;
  const float* const bias = place.Bias(layer);
  const float* const norm = place.Norm(layer);
  const int position = p.map.position[row];
  float squares = 0;
  for (int i = lane; i < head_dim; i += kWarp) {
    const float value = sums[i] + BiasAt(bias, int64_t{place.own} * head_dim + i);
    squares += value * value;
    sums[i] = value;
  }
  if (norm != nullptr) {
    const float inverse = 1.0f / sqrtf(WarpSum(squares) / head_dim + layer.norm_epsilon);
    for (int i = lane; i < head_dim; i += kWarp) sums[i] *= inverse * norm[i];
  }
  __syncwarp();
  const int turned = place.is_v ? 0 : layer.rotary.dim;
  const int half = turned / 2;
  const float* const turn = layer.rotary.cos_sin + int64_t{position} * turned;
  const auto value_of = [&](int i) {
    if (i >= turned) return sums[i];
    const int angle = i < half ? i : i - half;
    const float other = sums[i < half ? i + half : angle];
    return sums[i] * turn[angle] + (i < half ? -other : other) * turn[half + angle];
  };
  if (place.is_q) {
    T* const to = static_cast<T*>(p.q.data) +
                  (int64_t{row} * (p.layer.q_rows / head_dim) + place.own) * head_dim;
    for (int i = lane; i < head_dim; i += kWarp) to[i] = FromFloat<T>(value_of(i));
    return;
  }
  const int block =
      p.lanes.BlockTable(p.map.lane[row], layer.kv.group)[position / layer.kv.block_size];
  const int64_t to = OffsetInBlock(layer.kv, block, place.own, position) +
                     (place.is_v ? layer.kv.value_offset : 0);
  if (layer.kv.dtype != DType::kFloat8) {
    for (int i = lane; i < head_dim; i += kWarp) {
      StoreAs(layer.kv.dtype, layer.kv.data, to + i, value_of(i));
    }
    return;
  }
  uint32_t largest = 0;
  for (int i = lane; i < head_dim; i += kWarp) largest = max(largest, MagnitudeBits(value_of(i)));
  const uint8_t scale = KvScaleFor(WarpMax(largest));
  const float inverse = KvScaleInverse(scale);
  for (int i = lane; i < head_dim; i += kWarp) {
    static_cast<Float8*>(layer.kv.data)[to + i] = ToFloat8(value_of(i) * inverse);
  }
  if (lane == 0) StoreScale(layer.kv, block, place.own, position, place.is_v, scale);
}

// A warp a head, by what attention's own blocks do (cluster_ends.cuh): the same bits. Whether the
// host knows the layer makes no difference.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads)
    OrderedQkvEndKernel(const __grid_constant__ QkvEndParams p) {
  using Head = HeadEnd<kDim>;
  __shared__ float others[kThreads / kWarp][kDim];
  const LayerParams& layer = LayerOf(p.layer);
  const int heads = p.qkv.width / kDim;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int item = static_cast<int>(blockIdx.x) * (kThreads / kWarp) + warp;
  WaitForDependency();
  LaunchDependents();
  if (item >= p.rows * heads) return;  // the whole warp
  const int row = item / heads;
  const HeadPlace place(p.layer, item % heads);
  const int position = p.map.position[row];
  const float* const bias = place.Bias(layer);
  const int turned = place.is_v ? 0 : layer.rotary.dim;
  const Head end = {bias != nullptr ? bias + place.own * kDim : nullptr, place.Norm(layer),
                    layer.rotary.cos_sin + int64_t{position} * turned, turned, layer.norm_epsilon};
  typename Head::Half x[2];
  end(static_cast<const float*>(p.qkv.data) + int64_t{item} * kDim, others[warp], x);
  constexpr int kVec = Head::kVec;
  if (place.is_q) {
    T* const to = static_cast<T*>(p.q.data) +
                  (int64_t{row} * (p.layer.q_rows / kDim) + place.own) * kDim;
#pragma unroll
    for (int half = 0; half < 2; ++half) StoreFloats<T, kVec>(x[half].at, to + Head::Begin(half));
    return;
  }
  const KvLayer& kv = layer.kv;
  const int block = p.lanes.BlockTable(p.map.lane[row], kv.group)[position / kv.block_size];
  const int64_t to =
      OffsetInBlock(kv, block, place.own, position) + (place.is_v ? kv.value_offset : 0);
  const auto store = [&](auto zero) {
    using Kv = decltype(zero);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      StoreFloats<Kv, kVec>(x[half].at, static_cast<Kv*>(kv.data) + to + Head::Begin(half));
    }
  };
  switch (kv.dtype) {
    case DType::kBFloat16:
      return store(__nv_bfloat16{});
    case DType::kFloat16:
      return store(__half{});
    case DType::kFloat32:
      return store(float{});
    default:  // float8
      break;
  }
  const uint8_t scale = ScaleHead<kDim>(x);
  if (threadIdx.x % kWarp == 0) StoreScale(kv, block, place.own, position, place.is_v, scale);
  store(Float8{});
}

bool IsWide(const QkvEndParams& p) {
  if (p.layer.host == nullptr) return false;
  const LayerParams& layer = *p.layer.host;
  bool wide = layer.kv.head_dim % kWide == 0 && layer.rotary.dim % (2 * kWide) == 0 &&
              layer.kv.block_stride % kWide == 0 && layer.kv.value_offset % kWide == 0;
  for (const void* pointer : std::initializer_list<const void*>{
           layer.q_bias, layer.k_bias, layer.v_bias, layer.q_norm, layer.k_norm,
           layer.rotary.cos_sin, layer.kv.data, p.qkv.data, p.q.data}) {
    wide = wide && IsAligned(pointer, 16);
  }
  return wide;
}

WideQkvEnd WideOf(const QkvEndParams& p) {
  const LayerParams& layer = *p.layer.host;
  const int32_t q_heads = p.layer.q_rows / p.layer.head_dim;
  return {.map = p.map,
          .lanes = p.lanes,
          .qkv = static_cast<const float*>(p.qkv.data),
          .q_bias = layer.q_bias,
          .k_bias = layer.k_bias,
          .v_bias = layer.v_bias,
          .q_norm = layer.q_norm,
          .k_norm = layer.k_norm,
          .rotary = layer.rotary,
          .kv = layer.kv,
          .epsilon = layer.norm_epsilon,
          .q_out = p.q.data,
          .q_heads = q_heads,
          .heads = q_heads + 2 * layer.kv.kv_heads,
          .rows = p.rows};
}

template <typename T, int kLanes, int kPairs, bool kScaled>
cudaError_t LaunchWide(const QkvEndParams& p, const LaunchContext& context) {
  const WideQkvEnd wide = WideOf(p);
  return LaunchKernel(WideQkvEndKernel<T, kLanes, kPairs, kScaled>,
                      dim3(Blocks(int64_t{p.rows} * wide.heads, kThreads / kLanes)), dim3(kThreads),
                      0, context, wide);
}

// With fewer rows the device holds all heads at once.
constexpr int32_t kTurnedRows = 128;

// Of wide ones.
bool IsTurned(const QkvEndParams& p) {
  const LayerParams& layer = *p.layer.host;
  const int32_t head_dim = p.layer.head_dim;
  return p.rows >= kTurnedRows && (head_dim == 64 || head_dim == 128) &&
         layer.rotary.dim == head_dim && layer.q_bias == nullptr && layer.k_bias == nullptr &&
         layer.v_bias == nullptr && layer.q_norm == nullptr && layer.k_norm == nullptr &&
         p.layer.q_rows / head_dim % kTurnedHeads == 0 && layer.kv.kv_heads % kTurnedHeads == 0 &&
         p.q.dtype == layer.kv.dtype && p.q.dtype != DType::kFloat32;
}

// Queries and cache of one 16-bit type.
template <typename T>
cudaError_t LaunchTurned(const QkvEndParams& p, const LaunchContext& context) {
  const WideQkvEnd wide = WideOf(p);
  const auto launch = [&](auto lanes, auto kernel) {
    const int64_t items = int64_t{p.rows} * (wide.heads / kTurnedHeads);
    return LaunchKernel(kernel, dim3(Blocks(items, kThreads / lanes())), dim3(kThreads), 0, context,
                        wide);
  };
  if (p.layer.head_dim == 64) {
    return launch(std::integral_constant<int, 8>(), TurnHeadsKernel<T, 8>);
  }
  return launch(std::integral_constant<int, 16>(), TurnHeadsKernel<T, 16>);
}

// For heads of up to 512 elements.
template <typename T, bool kScaled>
cudaError_t LaunchWide(const QkvEndParams& p, int64_t pairs, const LaunchContext& context) {
  if (pairs <= 8) return LaunchWide<T, 8, 1, kScaled>(p, context);
  if (pairs <= 16) return LaunchWide<T, 16, 1, kScaled>(p, context);
  if (pairs <= 32) return LaunchWide<T, 32, 1, kScaled>(p, context);
  return LaunchWide<T, 32, 2, kScaled>(p, context);
}

}  // namespace

cudaError_t LaunchQkvEnd(const QkvEndParams& p, const LaunchContext& context) {
  return WithType(p.q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t pairs = CeilDiv(p.layer.head_dim, 2 * kWide);
    if (pairs <= 64 && IsWide(p)) {
      if constexpr (!std::is_same_v<T, float>) {
        if (IsTurned(p)) return LaunchTurned<T>(p, context);
      }
      return p.layer.kv_dtype == DType::kFloat8 ? LaunchWide<T, true>(p, pairs, context)
                                                : LaunchWide<T, false>(p, pairs, context);
    }
    const int64_t heads = (p.layer.q_rows + 2 * p.layer.kv_rows) / p.layer.head_dim;
    return LaunchKernel(PlainQkvEndKernel<T>, dim3(Blocks(p.rows * heads, kThreads / kWarp)),
                        dim3(kThreads), 0, context, p);
  });
}

cudaError_t LaunchOrderedQkvEnd(const QkvEndParams& p, const LaunchContext& context) {
  return WithType(p.q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t heads = (p.layer.q_rows + 2 * p.layer.kv_rows) / p.layer.head_dim;
    const auto launch = [&](void (*kernel)(QkvEndParams)) {
      return LaunchKernel(kernel, dim3(Blocks(p.rows * heads, kThreads / kWarp)), dim3(kThreads), 0,
                          context, p);
    };
    switch (p.layer.head_dim) {
      case 64:
        return launch(OrderedQkvEndKernel<T, 64>);
      case 128:
        return launch(OrderedQkvEndKernel<T, 128>);
      case 256:
        return launch(OrderedQkvEndKernel<T, 256>);
      default:
        return launch(PlainQkvEndKernel<T>);
    }
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
