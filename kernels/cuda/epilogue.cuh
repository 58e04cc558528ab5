// What becomes of a product's sums: the ends of the fused operations, the same for every kernel
// that makes the sums. An end is made from an operation's parameters and its layer's entry of the
// table; it may be made before WaitForDependency and used after it. Everything is computed in
// float32 and rounded once, when it is stored.
#pragma once

#include <cstdint>

#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

__device__ __forceinline__ float BiasAt(const float* bias, int64_t i) {
  return bias != nullptr ? bias[i] : 0.0f;
}

// Stores as `dtype`: for buffers whose type the kernel is not compiled for.
__device__ __forceinline__ void StoreAs(DType dtype, void* to, int64_t i, float value) {
  switch (dtype) {
    case DType::kBFloat16:
      static_cast<__nv_bfloat16*>(to)[i] = FromFloat<__nv_bfloat16>(value);
      break;
    case DType::kFloat16:
      static_cast<__half*>(to)[i] = FromFloat<__half>(value);
      break;
    default:
      static_cast<float*>(to)[i] = value;
      break;
  }
}

// ---- Cooperation of thread blocks ---------------------------------------------------------------

// The end of a layer's last kernel: called once by each of the grid's `blocks` when it needs the
// layer's number no more; the last of them moves the number on. Null `advance`: nothing.
template <typename Sync = SyncBlock>
__device__ __forceinline__ void AdvanceLayer(int32_t* advance, uint32_t* counter, uint32_t blocks,
                                             const Sync& sync = Sync()) {
  if (advance == nullptr) return;
  if (LastToArrive(counter, blocks, sync) && threadIdx.x == 0) *advance += 1;
}

// ---- Element by element -------------------------------------------------------------------------

// out[row][column] = sum + bias[column]
template <typename T>
struct StoreEnd {
  void* out;          // [R, width]
  bool wide;          // out is float32 where T is not
  int64_t width;      // outputs
  const float* bias;  // [width] or null

  __device__ explicit StoreEnd(const MatMulParams& p)
      : out(p.out.data), wide(p.out.dtype == DType::kFloat32), width(p.out.width), bias(p.bias) {}
  __device__ __forceinline__ void operator()(int row, int column, float sum) const {
    Store(row, column, sum + Before(column));
  }
  // The two parts of it: what is added, for kernels that load it ahead of the sums, and the rest.
  __device__ __forceinline__ float Before(int column) const { return BiasAt(bias, column); }
  __device__ __forceinline__ void Store(int row, int column, float value) const {
    const int64_t at = row * width + column;
    if (wide) {
      static_cast<float*>(out)[at] = value;
    } else {
      static_cast<T*>(out)[at] = FromFloat<T>(value);
    }
  }
};

// The input and the weights of the products that go to the residual stream.
__host__ __device__ inline const Rows& InputOf(const OutputResidualParams& p) {
  return p.attention;
}
__host__ __device__ inline const Rows& InputOf(const DownResidualParams& p) { return p.in; }
__host__ __device__ inline const Rows& InputOf(const DownNormParams& p) { return p.in; }

__device__ inline const Matrix& WeightOf(const OutputResidualParams&, const LayerParams& layer) {
  return layer.o;
}
__device__ inline const Matrix& WeightOf(const DownResidualParams&, const LayerParams& layer) {
  return layer.down;
}
__device__ inline const Matrix& WeightOf(const DownNormParams&, const LayerParams& layer) {
  return layer.down;
}

// to[row][column] += sum + bias[column], or = that: `to` is the residual stream or the delta, which
// is normed before it joins.
struct ResidualEnd {
  float* to;  // [R, width]
  bool add;
  int64_t width;
  const float* bias;  // [width] or null

  __device__ ResidualEnd(const Rows& hidden, const Rows& delta, bool to_delta, const float* bias)
      : to(static_cast<float*>(to_delta ? delta.data : hidden.data)),
        add(!to_delta),
        width(hidden.width),
        bias(bias) {}
  __device__ ResidualEnd(const OutputResidualParams& p, const LayerParams& layer)
      : ResidualEnd(p.hidden, p.delta, p.delta.data != nullptr, layer.o_bias) {}
  __device__ ResidualEnd(const DownResidualParams& p, const LayerParams& layer)
      : ResidualEnd(p.hidden, p.delta, p.delta.data != nullptr, layer.down_bias) {}
  // What it leaves is for the Norms (norm_rows.cuh) of the same parameters.
  __device__ ResidualEnd(const DownNormParams& p, const LayerParams& layer)
      : ResidualEnd(p.hidden, p.delta, layer.mlp_post_norm != nullptr, layer.down_bias) {}

  __device__ __forceinline__ void operator()(int row, int column, float sum) const {
    Store(row, column, sum, Before(row, column));
  }
  // The two parts of it: what is loaded, for kernels that do so ahead of the sums, and the rest.
  struct Loaded {
    float bias;
    float residual;
  };
  __device__ __forceinline__ Loaded Before(int row, int column) const {
    return {BiasAt(bias, column), add ? to[row * width + column] : 0.0f};
  }
  __device__ __forceinline__ void Store(int row, int column, float sum,
                                        const Loaded& before) const {
    to[row * width + column] = before.residual + (sum + before.bias);
  }
};

__device__ __forceinline__ float Activate(Activation activation, float x) {
  if (activation == Activation::kSilu) {
    // From exp(-|x|), which cannot overflow.
    const float e = expf(-fabsf(x));
    return x * ((x < 0 ? e : 1.0f) / (1.0f + e));
  }
  // Hendrycks and Gimpel, 2016: the tanh approximation.
  constexpr float kSqrt2OverPi = 0.79788456080286535588f;
  return 0.5f * x * (1.0f + tanhf(kSqrt2OverPi * (x + 0.044715f * x * x * x)));
}

// out[row][column] = activation(gate + its bias) * (up + its bias)
template <typename T>
struct GateUpEnd {
  T* out;  // [R, width]
  int64_t width;
  const float* gate_bias;  // [width] or null
  const float* up_bias;
  Activation activation;

  __device__ GateUpEnd(const NormGateUpParams& p, const LayerParams& layer)
      : out(static_cast<T*>(p.out.data)),
        width(p.out.width),
        gate_bias(layer.gate_bias),
        up_bias(layer.up_bias),
        activation(layer.activation) {}
  __device__ __forceinline__ void operator()(int row, int column, float gate, float up) const {
    const float activated = Activate(activation, gate + BiasAt(gate_bias, column));
    out[row * width + column] = FromFloat<T>(activated * (up + BiasAt(up_bias, column)));
  }
};

// ---- Whole heads of q, k and v ------------------------------------------------------------------

// Heads are numbered through q's, then k's, then v's.
struct HeadPlace {
  bool is_q, is_v;
  int own;  // among its kind

  __device__ __forceinline__ HeadPlace(const LayerRef& ref, int head) {
    const int q_heads = ref.q_rows / ref.head_dim;
    const int kv_heads = ref.kv_rows / ref.head_dim;
    is_q = head < q_heads;
    is_v = head >= q_heads + kv_heads;
    own = is_q ? head : is_v ? head - q_heads - kv_heads : head - q_heads;
  }
  __device__ __forceinline__ const Matrix& Weight(const LayerParams& layer) const {
    return is_q ? layer.q : is_v ? layer.v : layer.k;
  }
  __device__ __forceinline__ const float* Bias(const LayerParams& layer) const {
    return is_q ? layer.q_bias : is_v ? layer.v_bias : layer.k_bias;
  }
};

// Where a row's new slot is in the cache.
struct SlotPlace {
  int position;
  int block;
};

// Bias, the head's norm, the turn, and then q to q_out, k and v to their slot of the cache.
template <typename T>
struct QkvEnd {
  RowMap map;
  Lanes lanes;
  T* q_out;  // [R, q_rows]
  int q_rows;
  int head_dim;
  const LayerParams* layer;

  // Params: NormQkvParams or QkvParams.
  template <typename Params>
  __device__ QkvEnd(const Params& p, const LayerParams& of)
      : map(p.map),
        lanes(p.lanes),
        q_out(static_cast<T*>(p.q_out.data)),
        q_rows(p.layer.q_rows),
        head_dim(p.layer.head_dim),
        layer(&of) {}

  // Ends one head of a row. Called by all lanes of a warp. sums: [head_dim] in shared or global
  // memory, aligned to 16 bytes, visible to the warp, and overwritten.
  __device__ __forceinline__ void EndHead(const HeadPlace& place, int row, const SlotPlace& slot,
                                          float* sums) const;
  __device__ __forceinline__ void operator()(const HeadPlace& place, int row, float* sums) const {
    EndHead(place, row, PlaceOf(row), sums);
  }

  __device__ __forceinline__ SlotPlace PlaceOf(int row) const {
    const int position = map.position[row];
    return {position, BlockOf(map.lane[row], position)};
  }
  // The block of a position, and where element 0 of a head of k or v goes in it.
  __device__ __forceinline__ int BlockOf(int lane, int position) const {
    return lanes.BlockTable(lane, layer->kv.group)[position / layer->kv.block_size];
  }
  __device__ __forceinline__ int64_t SlotOf(const HeadPlace& place, int block, int position) const {
    return OffsetInBlock(layer->kv, block, place.own, position) +
           (place.is_v ? layer->kv.value_offset : 0);
  }
};

// A lane's elements of both halves of a head.
template <typename T, int kVec>
__device__ __forceinline__ void StoreHalves(const Pack<float, kVec>& low,
                                            const Pack<float, kVec>& high, T* to, int half) {
  StoreFloats<T, kVec>(low.at, to);
  StoreFloats<T, kVec>(high.at, to + half);
}

// A head that lanes hold whole: lane l has kVec elements from l * kVec on of both halves, which turn
// together. All loads are made before the first is used.
template <int kVec, typename T>
__device__ __forceinline__ void EndHeldHead(const QkvEnd<T>& end, const HeadPlace& place, int row,
                                            const SlotPlace& slot, const float* sums) {
  using Packed = Pack<float, kVec>;
  const LayerParams& layer = *end.layer;
  const int half = end.head_dim / 2;
  const int i = static_cast<int>(threadIdx.x) % kWarp * kVec;
  const float* bias = place.Bias(layer);
  const float* norm = place.is_q ? layer.q_norm : place.is_v ? nullptr : layer.k_norm;
  const bool turns = !place.is_v && layer.rotary.dim != 0;
  const auto load = [&](const float* from) { return LoadPack<float, kVec>(from + i); };
  Packed low = load(sums), high = load(sums + half);
  Packed cosine, sine, weight[2], add[2] = {};
  if (turns) {
    const float* turn = layer.rotary.cos_sin + int64_t{slot.position} * end.head_dim;
    cosine = load(turn);
    sine = load(turn + half);
  }
  if (norm != nullptr) {
    weight[0] = load(norm);
    weight[1] = load(norm + half);
  }
  if (bias != nullptr) {
    bias += int64_t{place.own} * end.head_dim;
    add[0] = load(bias);
    add[1] = load(bias + half);
  }
#pragma unroll
  for (int k = 0; k < kVec; ++k) {
    low.at[k] += add[0].at[k];
    high.at[k] += add[1].at[k];
  }
  if (norm != nullptr) {
    float squares = 0;
#pragma unroll
    for (int k = 0; k < kVec; ++k) squares += low.at[k] * low.at[k] + high.at[k] * high.at[k];
    const float inverse = 1.0f / sqrtf(WarpSum(squares) / end.head_dim + layer.norm_epsilon);
#pragma unroll
    for (int k = 0; k < kVec; ++k) {
      low.at[k] *= inverse * weight[0].at[k];
      high.at[k] *= inverse * weight[1].at[k];
    }
  }
  if (turns) {
#pragma unroll
    for (int k = 0; k < kVec; ++k) {
      const float turned = low.at[k] * cosine.at[k] - high.at[k] * sine.at[k];
      high.at[k] = high.at[k] * cosine.at[k] + low.at[k] * sine.at[k];
      low.at[k] = turned;
    }
  }
  if (place.is_q) {
    T* to = end.q_out + int64_t{row} * end.q_rows + int64_t{place.own} * end.head_dim + i;
    StoreHalves(low, high, to, half);
    return;
  }
  const int64_t to = end.SlotOf(place, slot.block, slot.position) + i;
  switch (layer.kv.dtype) {
    case DType::kBFloat16:
      return StoreHalves(low, high, static_cast<__nv_bfloat16*>(layer.kv.data) + to, half);
    case DType::kFloat16:
      return StoreHalves(low, high, static_cast<__half*>(layer.kv.data) + to, half);
    case DType::kFloat32:
      return StoreHalves(low, high, static_cast<float*>(layer.kv.data) + to, half);
  }
}

// Any other head: element by element, several times through `sums`.
template <typename T>
__device__ __noinline__ void EndAnyHead(const QkvEnd<T> end, const HeadPlace place, int row,
                                        const SlotPlace slot, float* sums) {
  const LayerParams& layer = *end.layer;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int head_dim = end.head_dim;
  const int turned = place.is_v ? 0 : layer.rotary.dim;
  const int half = turned / 2;
  const float* bias = place.Bias(layer);
  const float* norm = place.is_q ? layer.q_norm : place.is_v ? nullptr : layer.k_norm;
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
  const float* turn = layer.rotary.cos_sin + int64_t{slot.position} * turned;
  const int64_t to = place.is_q
                         ? int64_t{row} * end.q_rows + int64_t{place.own} * head_dim
                         : end.SlotOf(place, slot.block, slot.position);
  for (int i = lane; i < head_dim; i += kWarp) {
    float value = sums[i];
    if (i < turned) {
      const int angle = i < half ? i : i - half;
      const float other = sums[i < half ? i + half : angle];
      value = value * turn[angle] + (i < half ? -other : other) * turn[half + angle];
    }
    if (place.is_q) {
      end.q_out[to + i] = FromFloat<T>(value);
    } else {
      StoreAs(layer.kv.dtype, layer.kv.data, to + i, value);
    }
  }
  __syncwarp();  // the caller may write `sums` again
}

template <typename T>
__device__ __forceinline__ void QkvEnd<T>::EndHead(const HeadPlace& place, int row,
                                                   const SlotPlace& slot, float* sums) const {
  const bool turns_whole =
      place.is_v || layer->rotary.dim == 0 || layer->rotary.dim == head_dim;
  if (turns_whole && head_dim == 256) return EndHeldHead<4>(*this, place, row, slot, sums);
  if (turns_whole && head_dim == 128) return EndHeldHead<2>(*this, place, row, slot, sums);
  if (turns_whole && head_dim == 64) return EndHeldHead<1>(*this, place, row, slot, sums);
  EndAnyHead(*this, place, row, slot, sums);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
