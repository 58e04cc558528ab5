// What becomes of a product's sums: the ends of the fused operations, the same for every kernel
// that makes the sums. An end is made from an operation's parameters and its layer's entry of the
// table; it may be made before WaitForDependency and used after it. Everything is computed in
// float32 and rounded once, when it is stored.
#pragma once

#include <cstdint>

#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/common.cuh"
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

// ---- Outputs of q, k and v ----------------------------------------------------------------------

// An output, counted through q's, then k's, then v's.
struct QkvPlace {
  bool is_q, is_v;
  int row;   // of its matrix
  int rows;  // that the matrix has

  __device__ __forceinline__ QkvPlace(const LayerRef& ref, int output) {
    is_q = output < ref.q_rows;
    is_v = output >= ref.q_rows + ref.kv_rows;
    row = is_q ? output : output - ref.q_rows - (is_v ? ref.kv_rows : 0);
    rows = is_q ? ref.q_rows : ref.kv_rows;
  }
  __device__ __forceinline__ const Matrix& Weight(const LayerParams& layer) const {
    return is_q ? layer.q : is_v ? layer.v : layer.k;
  }
};

// A head, counted in the same way.
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
  __device__ __forceinline__ const float* Bias(const LayerParams& layer) const {
    return is_q ? layer.q_bias : is_v ? layer.v_bias : layer.k_bias;
  }
  // Null: none.
  __device__ __forceinline__ const float* Norm(const LayerParams& layer) const {
    return is_q ? layer.q_norm : is_v ? nullptr : layer.k_norm;
  }
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
