// The products of a model: weights and buffers for up to 64 rows, and each operation of
// a layer as the step plans call it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/stream.h"

#define MUST(call)                                                                        \
  do {                                                                                    \
    if (const cudaError_t error = (call); error != cudaSuccess) {                         \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(error)); \
      std::exit(1);                                                                       \
    }                                                                                     \
  } while (false)

namespace sirocco {

using cuda::LaunchContext;
using cuda::SIROCCO_CUDA_PATH::LaunchKernel;
using cuda::SIROCCO_CUDA_PATH::LaunchStream;
using cuda::SIROCCO_CUDA_PATH::StreamTuning;
using Element = __nv_bfloat16;
inline constexpr DType kDType = DType::kBFloat16;
inline constexpr int kRows = 64;       // at most

struct Model {
  const char* name;
  int layers, hidden, heads, kv_heads, head_dim, intermediate, vocab;
  bool post_norms;  // and norms by head

  int q_rows() const { return heads * head_dim; }
  int kv_rows() const { return kv_heads * head_dim; }
  int qkv_rows() const { return q_rows() + 2 * kv_rows(); }
};
template <typename T>
T* Allocate(size_t count) {
  void* data = nullptr;
  MUST(cudaMalloc(&data, count * sizeof(T)));
  MUST(cudaMemset(data, 0, count * sizeof(T)));
  return static_cast<T*>(data);
}

struct FillParams {
  void* to;  // [count]
  int64_t count;
  float value;
};
// Of pairs: both about 0.01, of either sign.
__global__ void FillElementsKernel(const __grid_constant__ FillParams p) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.count;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t hash = static_cast<uint32_t>(i) * 2654435761u;
    hash = (hash ^ hash >> 15) * 2246822519u;
    hash = (hash ^ hash >> 13) * 3266489917u;
    static_cast<uint32_t*>(p.to)[i] = 0x3c003c00u ^ ((hash ^ hash >> 16) & 0x80ff80ffu);
  }
}
__global__ void FillFloatsKernel(const __grid_constant__ FillParams p) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.count;
       i += int64_t{gridDim.x} * blockDim.x) {
    static_cast<float*>(p.to)[i] = p.value * (1 + 0.001f * static_cast<float>(i % 97));
  }
}
// In the default stream. `count` is even.
inline void FillElements(Element* to, int64_t count) {
  MUST(LaunchKernel(FillElementsKernel, dim3(1024), dim3(256), 0, LaunchContext(),
                    FillParams{to, count / 2, 0}));
}
inline void FillFloats(float* to, int64_t count, float value) {
  MUST(LaunchKernel(FillFloatsKernel, dim3(64), dim3(256), 0, LaunchContext(),
                    FillParams{to, count, value}));
}

// In attention's place: what the output product reads comes from what q, k, v wrote.
struct StandInParams {
  const float* qkv;
  Element* out;
  int count;
};
__global__ void StandIn(const __grid_constant__ StandInParams p) {
  cuda::SIROCCO_CUDA_PATH::LaunchDependents();
  cuda::SIROCCO_CUDA_PATH::WaitForDependency();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < p.count) p.out[i] = __float2bfloat16_rn(p.qkv[i]);
}

// A model's weights, and buffers for up to kRows rows.
class World {
 public:
  explicit World(const Model& model) : m_(model) {
    const int64_t matrices[] = {
        int64_t{m_.q_rows()} * m_.hidden,     int64_t{m_.kv_rows()} * m_.hidden,
        int64_t{m_.kv_rows()} * m_.hidden,    int64_t{m_.q_rows()} * m_.hidden,
        int64_t{m_.intermediate} * m_.hidden, int64_t{m_.intermediate} * m_.hidden,
        int64_t{m_.intermediate} * m_.hidden};
    for (const int64_t elements : matrices) layer_elements_ += elements;
    head_elements_ = int64_t{m_.vocab} * m_.hidden;
    weights_ = Allocate<Element>(layer_elements_ * m_.layers + head_elements_);
    FillElements(weights_, Bytes() / 2);
    norm_ = Allocate<float>(65536);
    FillFloats(norm_, 65536, 1.0f);
    const int64_t widest = kRows * int64_t{std::max(m_.vocab, 2 * m_.intermediate)};
    hidden_ = Allocate<float>(kRows * int64_t{m_.hidden});
    delta_ = Allocate<float>(kRows * int64_t{m_.hidden});
    sum_ = Allocate<float>(kRows * int64_t{m_.hidden});
    logits_ = Allocate<float>(widest);
    qkv_ = Allocate<float>(widest);
    attention_ = Allocate<Element>(widest);
    wide_ = Allocate<Element>(widest);
    normed_ = Allocate<Element>(kRows * int64_t{m_.hidden});
    FillRows();
    MakeTable();
    MUST(cudaDeviceSynchronize());
  }
  ~World() {
    for (void* data :
         {static_cast<void*>(weights_), static_cast<void*>(norm_),
          static_cast<void*>(hidden_), static_cast<void*>(delta_), static_cast<void*>(sum_),
          static_cast<void*>(logits_), static_cast<void*>(qkv_), static_cast<void*>(attention_),
          static_cast<void*>(wide_), static_cast<void*>(normed_), static_cast<void*>(table_)}) {
      MUST(cudaFree(data));
    }
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // What the operations read, as it was at first.
  void FillRows() const {
    for (float* rows : {hidden_, delta_, sum_}) {
      FillFloats(rows, kRows * int64_t{m_.hidden}, rows == delta_ ? 0.01f : 0.5f);
    }
    FillElements(normed_, kRows * int64_t{m_.hidden});
    FillElements(attention_, kRows * int64_t{m_.q_rows()});
    FillElements(wide_, kRows * int64_t{m_.intermediate});
  }

  const Model& model() const { return m_; }
  const std::vector<LayerParams>& table() const { return host_table_; }
  int64_t Bytes() const { return (layer_elements_ * m_.layers + head_elements_) * 2; }

  // ---- One operation of layer `layer` each: its parameters, and its launch, which returns the
  // bytes of its weights ----
  NormQkvParams QkvOf(int rows, int layer) const {
    NormQkvParams p;
    p.rows = rows;
    p.layer = Ref(layer);
    p.hidden = Floats(hidden_);
    p.normed = {normed_, kDType, m_.hidden};
    p.qkv = {qkv_, DType::kFloat32, m_.qkv_rows()};
    if (m_.post_norms) {
      p.delta = Floats(delta_);
      p.sum = Floats(sum_);
    }
    return p;
  }
  int64_t Qkv(int rows, int layer, const LaunchContext& context, const StreamTuning& tuning) const {
    MUST(LaunchStream(QkvOf(rows, layer), context, tuning));
    return int64_t{m_.qkv_rows()} * m_.hidden * 2;
  }
  OutputResidualParams OutputOf(int rows, int layer) const {
    OutputResidualParams p;
    p.rows = rows;
    p.layer = Ref(layer);
    p.attention = {attention_, kDType, m_.q_rows()};
    p.hidden = Floats(m_.post_norms ? sum_ : hidden_);
    if (m_.post_norms) p.delta = Floats(delta_);
    return p;
  }
  int64_t Output(int rows, int layer, const LaunchContext& context,
                 const StreamTuning& tuning) const {
    MUST(LaunchStream(OutputOf(rows, layer), context, tuning));
    return int64_t{m_.q_rows()} * m_.hidden * 2;
  }
  NormGateUpParams GateUpOf(int rows, int layer) const {
    NormGateUpParams p;
    p.rows = rows;
    p.layer = Ref(layer);
    p.hidden = Floats(m_.post_norms ? sum_ : hidden_);
    p.normed = {normed_, kDType, m_.hidden};
    p.out = {wide_, kDType, m_.intermediate};
    if (m_.post_norms) {
      p.delta = Floats(delta_);
      p.sum = Floats(hidden_);
    }
    return p;
  }
  int64_t GateUp(int rows, int layer, const LaunchContext& context,
                 const StreamTuning& tuning) const {
    MUST(LaunchStream(GateUpOf(rows, layer), context, tuning));
    return 2 * int64_t{m_.intermediate} * m_.hidden * 2;
  }
  DownResidualParams DownOf(int rows, int layer) const {
    DownResidualParams p;
    p.rows = rows;
    p.layer = Ref(layer);
    p.in = {wide_, kDType, m_.intermediate};
    p.hidden = Floats(hidden_);
    if (m_.post_norms) p.delta = Floats(delta_);
    return p;
  }
  int64_t Down(int rows, int layer, const LaunchContext& context,
               const StreamTuning& tuning) const {
    MUST(LaunchStream(DownOf(rows, layer), context, tuning));
    return int64_t{m_.intermediate} * m_.hidden * 2;
  }
  MatMulParams HeadOf(int rows) const {
    MatMulParams p;
    p.rows = rows;
    p.in = {normed_, kDType, m_.hidden};
    p.weight = {weights_ + layer_elements_ * m_.layers, kDType, m_.vocab, m_.hidden};
    p.out = {logits_, DType::kFloat32, m_.vocab};
    return p;
  }
  int64_t Head(int rows, int, const LaunchContext& context, const StreamTuning& tuning) const {
    MUST(LaunchStream(HeadOf(rows), context, tuning));
    return head_elements_ * 2;
  }

  // A decode step with the stand-in for attention.
  void Step(int rows, const LaunchContext& context, const StreamTuning& tuning) const {
    for (int layer = 0; layer < m_.layers; ++layer) {
      Qkv(rows, layer, context, tuning);
      const int count = rows * m_.q_rows();
      MUST(LaunchKernel(StandIn, dim3((count + 255) / 256), dim3(256), 0, context,
                        StandInParams{qkv_, attention_, count}));
      Output(rows, layer, context, tuning);
      GateUp(rows, layer, context, tuning);
      Down(rows, layer, context, tuning);
    }
    Head(rows, 0, context, tuning);
  }

 private:
  Rows Floats(float* data) const { return {data, DType::kFloat32, m_.hidden}; }
  LayerRef Ref(int layer) const {
    return {table_, nullptr, layer, m_.q_rows(), m_.kv_rows(), m_.head_dim, m_.intermediate};
  }

  void MakeTable() {
    std::vector<LayerParams>& table = host_table_;
    table.resize(m_.layers);
    Element* at = weights_;
    const auto matrix = [&](int rows, int columns) {
      const Matrix made = {at, kDType, rows, columns};
      at += int64_t{rows} * columns;
      return made;
    };
    for (int i = 0; i < m_.layers; ++i) {
      LayerParams& layer = table[i];
      layer.attention_norm = layer.mlp_norm = norm_;
      layer.q = matrix(m_.q_rows(), m_.hidden);
      layer.k = matrix(m_.kv_rows(), m_.hidden);
      layer.v = matrix(m_.kv_rows(), m_.hidden);
      layer.o = matrix(m_.hidden, m_.q_rows());
      layer.gate = matrix(m_.intermediate, m_.hidden);
      layer.up = matrix(m_.intermediate, m_.hidden);
      layer.down = matrix(m_.hidden, m_.intermediate);
      if (m_.post_norms) {
        layer.q_norm = layer.k_norm = norm_;
        layer.attention_post_norm = layer.mlp_post_norm = norm_;
        layer.input_post_norm = i == 0 ? nullptr : norm_;
        layer.activation = Activation::kGeluTanh;
      }
      layer.norm_epsilon = 1e-6f;
    }
    table_ = Allocate<LayerParams>(table.size());
    MUST(cudaMemcpy(table_, table.data(), table.size() * sizeof(LayerParams),
                    cudaMemcpyHostToDevice));
  }

  Model m_;
  int64_t layer_elements_ = 0;
  int64_t head_elements_ = 0;
  Element* weights_;
  float *norm_, *hidden_, *delta_, *sum_, *logits_, *qkv_;
  Element *attention_, *wide_, *normed_;
  LayerParams* table_ = nullptr;
  std::vector<LayerParams> host_table_;
};

}  // namespace sirocco
