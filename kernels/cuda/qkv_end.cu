// The ends of q, k and v as a kernel of their own, where attention does not make them: bias, the
// heads' norms, the turn; then q to `q`, k and v to their slots of the cache.
//
// A head of a row is a few lanes', which hold all of it: a lane has four elements of the part that
// is turned and the four that they are turned with. All loads of a head are under way at once.
//
// Bytes: the sums once, q, k and v once; rotary tables, norms and biases from caches. Grid:
// kThreads / lanes a head heads a block, through all heads of the first row, then of the next. No
// shared memory. Heads that cannot be cut by fours, are not aligned, or whose layer the host does
// not know, take a plain kernel: a warp a head, in passes over its sums.
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/launch.cuh"
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

// kLanes: of a head, a power of two; kPairs: of packs that each of them has.
template <typename T, int kLanes, int kPairs>
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
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int element = i == 0 ? pair.first : pair.second;
      if (!exists || element < 0) continue;
      if (is_q) {
        StoreFloats<T, kWide>(x[j][i], static_cast<T*>(to) + at + element);
      } else {
        StorePackAs(p.kv.dtype, to, at + element, x[j][i]);
      }
    }
  }
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
  int64_t to = (int64_t{row} * (p.layer.q_rows / head_dim) + place.own) * head_dim;
  if (!place.is_q) {
    const int32_t* const blocks = p.lanes.BlockTable(p.map.lane[row], layer.kv.group);
    to = SlotOffset(layer.kv, blocks, place.own, position) +
         (place.is_v ? layer.kv.value_offset : 0);
  }
  for (int i = lane; i < head_dim; i += kWarp) {
    float value = sums[i];
    if (i < turned) {
      const int angle = i < half ? i : i - half;
      const float other = sums[i < half ? i + half : angle];
      value = value * turn[angle] + (i < half ? -other : other) * turn[half + angle];
    }
    if (place.is_q) {
      static_cast<T*>(p.q.data)[to + i] = FromFloat<T>(value);
    } else {
      StoreAs(layer.kv.dtype, layer.kv.data, to + i, value);
    }
  }
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

template <typename T, int kLanes, int kPairs>
cudaError_t LaunchWide(const QkvEndParams& p, const LaunchContext& context) {
  const LayerParams& layer = *p.layer.host;
  const int32_t q_heads = p.layer.q_rows / p.layer.head_dim;
  const WideQkvEnd wide = {.map = p.map,
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
  return LaunchKernel(WideQkvEndKernel<T, kLanes, kPairs>,
                      dim3(Blocks(int64_t{p.rows} * wide.heads, kThreads / kLanes)), dim3(kThreads),
                      0, context, wide);
}

}  // namespace

cudaError_t LaunchQkvEnd(const QkvEndParams& p, const LaunchContext& context) {
  return WithType(p.q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t pairs = CeilDiv(p.layer.head_dim, 2 * kWide);
    if (IsWide(p)) {
      if (pairs <= 8) return LaunchWide<T, 8, 1>(p, context);
      if (pairs <= 16) return LaunchWide<T, 16, 1>(p, context);
      if (pairs <= 32) return LaunchWide<T, 32, 1>(p, context);
      if (pairs <= 64) return LaunchWide<T, 32, 2>(p, context);
    }
    const int64_t heads = (p.layer.q_rows + 2 * p.layer.kv_rows) / p.layer.head_dim;
    return LaunchKernel(PlainQkvEndKernel<T>, dim3(Blocks(p.rows * heads, kThreads / kWarp)),
                        dim3(kThreads), 0, context, p);
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
