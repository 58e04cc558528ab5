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

  // Ends one head of rows first_row, first_row + 1 ... first_row + count - 1, count <= kMost, at
  // once: a row alone would mostly wait for memory. Called by all lanes of a warp. sums: of each
  // row [head_dim], `pitch` apart, in shared or global memory, visible to the warp, and
  // overwritten.
  template <int kMost>
  __device__ void EndRows(const HeadPlace& place, int first_row, int count, float* sums,
                          int64_t pitch) const;
  __device__ __forceinline__ void operator()(const HeadPlace& place, int row, float* sums) const {
    EndRows<1>(place, row, 1, sums, 0);
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

template <typename T>
template <int kMost>
__device__ void QkvEnd<T>::EndRows(const HeadPlace& place, int first_row, int count, float* sums,
                                   int64_t pitch) const {
  const int lane = threadIdx.x % kWarp;
  const int turned = place.is_v ? 0 : layer->rotary.dim;
  const int half = turned / 2;
  const DType kv_dtype = layer->kv.dtype;
  const float* bias = place.Bias(*layer);
  const float* norm = place.is_q ? layer->q_norm : place.is_v ? nullptr : layer->k_norm;

  // Rows that do not exist are done as the last one, and not stored.
  float* row_sums[kMost];
  const float* cosine[kMost];
  int64_t to[kMost];
  float squares[kMost];
#pragma unroll
  for (int r = 0; r < kMost; ++r) {
    const int last = r < count ? r : count - 1;
    const int row = first_row + last;
    const int position = map.position[row];
    row_sums[r] = sums + last * pitch;
    cosine[r] = layer->rotary.cos_sin + int64_t{position} * turned;
    to[r] = place.is_q ? int64_t{row} * q_rows + int64_t{place.own} * head_dim
                       : SlotOf(place, BlockOf(map.lane[row], position), position);
    squares[r] = 0;
  }
  if (bias != nullptr || norm != nullptr) {
    for (int i = lane; i < head_dim; i += kWarp) {
      const float add = BiasAt(bias, int64_t{place.own} * head_dim + i);
      float value[kMost];
#pragma unroll
      for (int r = 0; r < kMost; ++r) value[r] = row_sums[r][i] + add;
#pragma unroll
      for (int r = 0; r < kMost; ++r) {
        squares[r] += value[r] * value[r];
        if (r < count) row_sums[r][i] = value[r];
      }
    }
  }
  if (norm != nullptr) {
    float inverse[kMost];
#pragma unroll
    for (int r = 0; r < kMost; ++r) {
      inverse[r] = 1.0f / sqrtf(WarpSum(squares[r]) / head_dim + layer->norm_epsilon);
    }
    for (int i = lane; i < head_dim; i += kWarp) {
      const float weight = norm[i];
#pragma unroll
      for (int r = 0; r < kMost; ++r) {
        if (r < count) row_sums[r][i] *= inverse[r] * weight;
      }
    }
  }
  __syncwarp();

  for (int i = lane; i < head_dim; i += kWarp) {
    const int partner = i < half ? i + half : i - half;  // where i is turned
    const int angle = i < half ? i : i - half;
    float value[kMost];
#pragma unroll
    for (int r = 0; r < kMost; ++r) {
      value[r] = row_sums[r][i];
      if (i < turned) {
        const float other = row_sums[r][partner];
        const float sine = cosine[r][half + angle];
        value[r] = value[r] * cosine[r][angle] + (i < half ? -other : other) * sine;
      }
    }
#pragma unroll
    for (int r = 0; r < kMost; ++r) {
      if (r >= count) continue;
      if (place.is_q) {
        q_out[to[r] + i] = FromFloat<T>(value[r]);
      } else {
        StoreAs(kv_dtype, layer->kv.data, to[r] + i, value[r]);
      }
    }
  }
  __syncwarp();  // the caller may write `sums` again
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
