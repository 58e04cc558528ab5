// The streamed products (kernels/cuda/stream.h) at the shapes of three models, bfloat16, 1 to 8
// rows: time, GB/s of weights, and the share of a plain read stream that is measured first. Then a
// whole decode step but for attention, in one graph, with and without the programmatic attribute.
// Weights are read cold: each launch takes others, over more than four times the L2 cache.
//
//   nvcc -std=c++20 -O3 -DSIROCCO_HOPPER=1 -gencode arch=compute_90a,code=sm_90a -I. \
//     --expt-relaxed-constexpr tests/bench/stream_bench.cu kernels/cuda/stream_*.cu \
//     -o /tmp/stream_bench
//   /tmp/stream_bench [--sweep] [part of a model's name]
//
// --sweep: the step at 1 and 4 rows over the kernel's tuning instead.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/stream.h"

namespace sirocco {
namespace {

using cuda::LaunchContext;
using cuda::SIROCCO_CUDA_PATH::LaunchKernel;
using cuda::SIROCCO_CUDA_PATH::LaunchStream;
using cuda::SIROCCO_CUDA_PATH::StreamTuning;
using Element = __nv_bfloat16;
constexpr DType kDType = DType::kBFloat16;

#define MUST(call)                                                                        \
  do {                                                                                    \
    if (const cudaError_t error = (call); error != cudaSuccess) {                         \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(error)); \
      std::exit(1);                                                                       \
    }                                                                                     \
  } while (false)

struct Model {
  const char* name;
  int layers, hidden, heads, kv_heads, head_dim, intermediate, vocab;
  bool post_norms;  // and norms by head

  int q_rows() const { return heads * head_dim; }
  int kv_rows() const { return kv_heads * head_dim; }
  int qkv_rows() const { return q_rows() + 2 * kv_rows(); }
};
constexpr Model kModels[] = {
    {"gemma3-1b", 26, 1152, 4, 1, 256, 6912, 262144, true},
    {"llama3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, false},
    {"llama3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, false},
};

__global__ void FillWeights(uint32_t* to, int64_t count) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    // Both halves about 0.01, of either sign.
    const uint32_t hash = static_cast<uint32_t>(i) * 2654435761u;
    to[i] = 0x3c003c00u ^ ((hash >> 3) & 0x80ff80ffu);
  }
}

__global__ void FillFloats(float* to, int64_t count, float value) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    to[i] = value + 0.001f * static_cast<float>(i % 97);
  }
}

__global__ void ReadStream(const uint4* from, int64_t count, uint4* out) {
  uint4 x = {0, 0, 0, 0};
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const uint4 v = __ldcs(from + i);
    x = {x.x ^ v.x, x.y ^ v.y, x.z ^ v.z, x.w ^ v.w};
  }
  if (x.x == 0x12345) *out = x;
}

// In attention's place: what the output product reads comes from what q, k, v wrote.
struct StandInParams {
  const Element* q;
  Element* out;
  int count;
};
__global__ void StandIn(const __grid_constant__ StandInParams p) {
  cuda::SIROCCO_CUDA_PATH::LaunchDependents();
  cuda::SIROCCO_CUDA_PATH::WaitForDependency();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < p.count) p.out[i] = p.q[i];
}

// out[row][n], one thread each: what the streamed product must come near.
__global__ void PlainProduct(const Element* x, const Element* w, float* out, int rows, int n,
                             int columns) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= int64_t{rows} * n) return;
  const int64_t row = i / n;
  float sum = 0;
  for (int k = 0; k < columns; ++k) {
    sum += __bfloat162float(x[row * columns + k]) * __bfloat162float(w[i % n * columns + k]);
  }
  out[i] = sum;
}

template <typename T>
T* Allocate(size_t count) {
  void* data = nullptr;
  MUST(cudaMalloc(&data, count * sizeof(T)));
  MUST(cudaMemset(data, 0, count * sizeof(T)));
  return static_cast<T*>(data);
}

struct Machine {
  cudaStream_t stream;
  int multiprocessors;
  double bytes_a_second = 0;  // of a plain read stream
  float* scratch;
  uint32_t* counters;

  LaunchContext Context(bool programmatic) const {
    return {stream, multiprocessors, programmatic, scratch, counters};
  }

  // Microseconds of what `work` enqueues, as a graph; the median of 15.
  double Time(const std::function<void()>& work) const {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    cudaEvent_t from, to;
    MUST(cudaEventCreate(&from));
    MUST(cudaEventCreate(&to));
    std::vector<float> times;
    for (int i = 0; i < 18; ++i) {
      MUST(cudaEventRecord(from, stream));
      MUST(cudaGraphLaunch(exec, stream));
      MUST(cudaEventRecord(to, stream));
      MUST(cudaEventSynchronize(to));
      float ms = 0;
      MUST(cudaEventElapsedTime(&ms, from, to));
      if (i >= 3) times.push_back(ms);
    }
    MUST(cudaEventDestroy(from));
    MUST(cudaEventDestroy(to));
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphDestroy(graph));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2] * 1e3;
  }
};

// A model's weights, and buffers for up to 8 rows.
class World {
 public:
  World(const Machine& machine, const Model& model) : machine_(machine), m_(model) {
    const int64_t matrices[] = {
        int64_t{m_.q_rows()} * m_.hidden,     int64_t{m_.kv_rows()} * m_.hidden,
        int64_t{m_.kv_rows()} * m_.hidden,    int64_t{m_.q_rows()} * m_.hidden,
        int64_t{m_.intermediate} * m_.hidden, int64_t{m_.intermediate} * m_.hidden,
        int64_t{m_.intermediate} * m_.hidden};
    for (const int64_t elements : matrices) layer_elements_ += elements;
    head_elements_ = int64_t{m_.vocab} * m_.hidden;
    weights_ = Allocate<Element>(layer_elements_ * m_.layers + head_elements_);
    FillWeights<<<2048, 256>>>(reinterpret_cast<uint32_t*>(weights_), Bytes() / 4);
    norm_ = Allocate<float>(65536);
    FillFloats<<<64, 256>>>(norm_, 65536, 1.0f);
    cos_sin_ = Allocate<float>(int64_t{kPositions} * m_.head_dim);
    const int64_t widest = 8 * int64_t{std::max(m_.vocab, 2 * m_.intermediate)};
    hidden_ = Allocate<float>(8 * int64_t{m_.hidden});
    delta_ = Allocate<float>(8 * int64_t{m_.hidden});
    sum_ = Allocate<float>(8 * int64_t{m_.hidden});
    logits_ = Allocate<float>(widest);
    q_ = Allocate<Element>(widest);
    attention_ = Allocate<Element>(widest);
    wide_ = Allocate<Element>(widest);
    normed_ = Allocate<Element>(8 * int64_t{m_.hidden});
    FillFloats<<<64, 256>>>(hidden_, 8 * int64_t{m_.hidden}, 0.5f);
    for (Element* rows : {attention_, wide_, normed_}) {
      FillWeights<<<64, 256>>>(reinterpret_cast<uint32_t*>(rows), 4 * int64_t{m_.hidden});
    }
    MakeTable();
    MUST(cudaDeviceSynchronize());
  }
  ~World() {
    for (void* data :
         {static_cast<void*>(weights_), static_cast<void*>(norm_), static_cast<void*>(cos_sin_),
          static_cast<void*>(hidden_), static_cast<void*>(delta_), static_cast<void*>(sum_),
          static_cast<void*>(logits_), static_cast<void*>(q_), static_cast<void*>(attention_),
          static_cast<void*>(wide_), static_cast<void*>(normed_), static_cast<void*>(table_),
          static_cast<void*>(kv_), static_cast<void*>(ints_)}) {
      MUST(cudaFree(data));
    }
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  const Model& model() const { return m_; }
  int64_t Bytes() const { return (layer_elements_ * m_.layers + head_elements_) * 2; }

  // ---- One operation of layer `layer` each; bytes of its weights ----
  int64_t Qkv(int rows, int layer, const LaunchContext& context, const StreamTuning& tuning) const {
    NormQkvParams p;
    p.rows = rows;
    p.map = {ints_, ints_ + 8};
    p.lanes = lanes_;
    p.layer = Ref(layer);
    p.hidden = Floats(hidden_);
    p.normed = {normed_, kDType, m_.hidden};
    p.q_out = {q_, kDType, m_.q_rows()};
    if (m_.post_norms) {
      p.delta = Floats(delta_);
      p.sum = Floats(sum_);
    }
    MUST(LaunchStream(p, context, tuning));
    return int64_t{m_.qkv_rows()} * m_.hidden * 2;
  }
  int64_t Output(int rows, int layer, const LaunchContext& context,
                 const StreamTuning& tuning) const {
    OutputResidualParams p;
    p.rows = rows;
    p.layer = Ref(layer);
    p.attention = {attention_, kDType, m_.q_rows()};
    p.hidden = Floats(m_.post_norms ? sum_ : hidden_);
    if (m_.post_norms) p.delta = Floats(delta_);
    MUST(LaunchStream(p, context, tuning));
    return int64_t{m_.q_rows()} * m_.hidden * 2;
  }
  int64_t GateUp(int rows, int layer, const LaunchContext& context,
                 const StreamTuning& tuning) const {
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
    MUST(LaunchStream(p, context, tuning));
    return 2 * int64_t{m_.intermediate} * m_.hidden * 2;
  }
  int64_t Down(int rows, int layer, const LaunchContext& context,
               const StreamTuning& tuning) const {
    DownResidualParams p;
    p.rows = rows;
    p.layer = Ref(layer);
    p.in = {wide_, kDType, m_.intermediate};
    p.hidden = Floats(hidden_);
    if (m_.post_norms) p.delta = Floats(delta_);
    MUST(LaunchStream(p, context, tuning));
    return int64_t{m_.intermediate} * m_.hidden * 2;
  }
  MatMulParams HeadParams(int rows) const {
    MatMulParams p;
    p.rows = rows;
    p.in = {normed_, kDType, m_.hidden};
    p.weight = {weights_ + layer_elements_ * m_.layers, kDType, m_.vocab, m_.hidden};
    p.out = {logits_, DType::kFloat32, m_.vocab};
    return p;
  }
  int64_t Head(int rows, int, const LaunchContext& context, const StreamTuning& tuning) const {
    MUST(LaunchStream(HeadParams(rows), context, tuning));
    return head_elements_ * 2;
  }

  // A decode step with the stand-in for attention.
  void Step(int rows, const LaunchContext& context, const StreamTuning& tuning) const {
    for (int layer = 0; layer < m_.layers; ++layer) {
      Qkv(rows, layer, context, tuning);
      const int count = rows * m_.q_rows();
      MUST(LaunchKernel(StandIn, dim3((count + 255) / 256), dim3(256), 0, context,
                        StandInParams{q_, attention_, count}));
      Output(rows, layer, context, tuning);
      GateUp(rows, layer, context, tuning);
      Down(rows, layer, context, tuning);
    }
    Head(rows, 0, context, tuning);
  }

  // The LM head of all rows against PlainProduct: the largest difference over the largest value.
  double HeadError(int rows) const {
    const size_t count = static_cast<size_t>(rows) * m_.vocab;
    float* plain = Allocate<float>(count);
    PlainProduct<<<static_cast<unsigned>((count + 255) / 256), 256, 0, machine_.stream>>>(
        normed_, weights_ + layer_elements_ * m_.layers, plain, rows, m_.vocab, m_.hidden);
    Head(rows, 0, machine_.Context(false), {});
    std::vector<float> want(count), got(count);
    MUST(cudaStreamSynchronize(machine_.stream));
    MUST(cudaMemcpy(want.data(), plain, count * 4, cudaMemcpyDeviceToHost));
    MUST(cudaMemcpy(got.data(), logits_, count * 4, cudaMemcpyDeviceToHost));
    MUST(cudaFree(plain));
    double worst = 0, largest = 0;
    for (size_t i = 0; i < count; ++i) {
      const double difference = std::abs(static_cast<double>(got[i]) - want[i]);
      worst = difference > worst || difference != difference ? difference : worst;
      largest = std::max(largest, std::abs(static_cast<double>(want[i])));
    }
    return worst / largest;
  }

 private:
  static constexpr int kPositions = 64;
  static constexpr int kBlockSize = 16;

  Rows Floats(float* data) const { return {data, DType::kFloat32, m_.hidden}; }
  LayerRef Ref(int layer) const {
    return {table_, nullptr, layer, m_.q_rows(), m_.kv_rows(), m_.head_dim, m_.intermediate};
  }

  void MakeTable() {
    // Row r is lane r at position r; each lane has one block.
    std::vector<int32_t> ints(24);
    for (int i = 0; i < 24; ++i) ints[i] = i % 8;
    ints_ = Allocate<int32_t>(ints.size());
    MUST(cudaMemcpy(ints_, ints.data(), ints.size() * 4, cudaMemcpyHostToDevice));
    std::memset(&lanes_, 0, sizeof(lanes_));
    lanes_.block_table = ints_ + 16;
    lanes_.max_lanes = 8;
    lanes_.groups = 1;
    lanes_.max_blocks = 1;

    const int64_t half_block = int64_t{m_.kv_rows()} * kBlockSize;
    kv_ = Allocate<Element>(8 * 2 * half_block * m_.layers);
    std::vector<LayerParams> table(m_.layers);
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
      layer.rotary = {cos_sin_, m_.head_dim};
      layer.kv = {kv_ + 2 * half_block * i,
                  kDType,
                  2 * half_block * m_.layers,
                  half_block,
                  kBlockSize,
                  m_.kv_heads,
                  m_.head_dim,
                  0};
      layer.norm_epsilon = 1e-6f;
    }
    table_ = Allocate<LayerParams>(table.size());
    MUST(cudaMemcpy(table_, table.data(), table.size() * sizeof(LayerParams),
                    cudaMemcpyHostToDevice));
  }

  const Machine& machine_;
  Model m_;
  int64_t layer_elements_ = 0;
  int64_t head_elements_ = 0;
  Element* weights_;
  float *norm_, *cos_sin_, *hidden_, *delta_, *sum_, *logits_;
  Element *q_, *attention_, *wide_, *normed_;
  LayerParams* table_ = nullptr;
  Element* kv_ = nullptr;
  int32_t* ints_ = nullptr;
  Lanes lanes_;
};

double ReadBandwidth(const Machine& machine) {
  constexpr int64_t kBytes = int64_t{2} << 30;
  uint4* data = Allocate<uint4>(kBytes / 16);
  double best = 0;
  for (int blocks_each : {4, 8, 16}) {
    const double us = machine.Time([&] {
      ReadStream<<<machine.multiprocessors * blocks_each, 512, 0, machine.stream>>>(
          data, kBytes / 16, data);
    });
    best = std::max(best, kBytes / us * 1e6);
  }
  MUST(cudaFree(data));
  return best;
}

void Report(const Machine& machine, const char* what, int rows, bool programmatic, double us,
            double bytes) {
  const double rate = bytes / us * 1e6;
  std::printf("  %-9s %d rows %-12s %9.2f us %7.0f GB/s %5.1f%%\n", what, rows,
              programmatic ? "programmatic" : "plain", us, rate / 1e9,
              100 * rate / machine.bytes_a_second);
}

using OneLaunch = int64_t (World::*)(int, int, const LaunchContext&, const StreamTuning&) const;

// Each product alone, over the layers' weights in turn.
void TimeProducts(const Machine& machine, const World& world) {
  const std::pair<const char*, OneLaunch> products[] = {{"qkv", &World::Qkv},
                                                        {"output", &World::Output},
                                                        {"gate_up", &World::GateUp},
                                                        {"down", &World::Down},
                                                        {"head", &World::Head}};
  for (const auto& [name, launch] : products) {
    for (const int rows : {1, 2, 4, 8}) {
      for (const bool programmatic : {false, true}) {
        const LaunchContext context = machine.Context(programmatic);
        int64_t bytes = 0;
        const double us = machine.Time([&] {
          bytes = 0;
          // All layers at least once, and more than 256 MB.
          for (int i = 0; i < world.model().layers || bytes < (int64_t{256} << 20); ++i) {
            bytes += (world.*launch)(rows, i % world.model().layers, context, {});
          }
        });
        (world.*launch)(rows, 0, context, {});
        MUST(cudaStreamSynchronize(machine.stream));
        const int64_t each = (world.*launch)(rows, 0, context, {});
        Report(machine, name, rows, programmatic, us * each / bytes, each);
      }
    }
  }
}

void TimeSteps(const Machine& machine, const World& world) {
  for (const int rows : {1, 2, 4, 8}) {
    for (const bool programmatic : {false, true}) {
      const double us = machine.Time([&] { world.Step(rows, machine.Context(programmatic), {}); });
      Report(machine, "step", rows, programmatic, us, world.Bytes());
    }
  }
}

void Sweep(const Machine& machine, const World& world) {
  for (const int rows : {1, 4}) {
    for (const int tile_rows : {4, 8, 16}) {
      for (const int slot_kib : {10, 18, 34}) {
        for (const int ring_kib : {48, 64, 80, 96, 160}) {
          for (const int prefetch_kib : {0, 64, 192}) {
            const StreamTuning tuning = {tile_rows, slot_kib * 1024, ring_kib * 1024,
                                         prefetch_kib * 1024};
            const LaunchContext context = machine.Context(true);
            const double us = machine.Time([&] { world.Step(rows, context, tuning); });
            const double head = machine.Time([&] { world.Head(rows, 0, context, tuning); });
            std::printf("  tile %2d slot %2d KiB ring %3d KiB prefetch %3d KiB: head %8.2f us;",
                        tile_rows, slot_kib, ring_kib, prefetch_kib, head);
            Report(machine, "step", rows, true, us, world.Bytes());
          }
        }
      }
    }
  }
}

int Main(int argc, char** argv) {
  bool sweep = false;
  std::string wanted;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--sweep") == 0) {
      sweep = true;
    } else {
      wanted = argv[i];
    }
  }
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  Machine machine;
  machine.multiprocessors = properties.multiProcessorCount;
  MUST(cudaStreamCreate(&machine.stream));
  machine.scratch = Allocate<float>(8 * 65536);
  machine.counters = Allocate<uint32_t>(cuda::kCounters);
  machine.bytes_a_second = ReadBandwidth(machine);
  std::printf("%s, %d multiprocessors, read stream %.0f GB/s (2 GiB)\n", properties.name,
              machine.multiprocessors, machine.bytes_a_second / 1e9);
  for (const Model& model : kModels) {
    if (std::string(model.name).find(wanted) == std::string::npos) continue;
    const World world(machine, model);
    std::printf("%s: %.3f GB of weights\n", model.name, world.Bytes() / 1e9);
    for (int rows = 1; rows <= 8; ++rows) {
      const double error = world.HeadError(rows);
      std::printf("  head, %d rows: off by %.1e of the largest\n", rows, error);
      if (!(error < 1e-3)) return 1;
    }
    if (sweep) {
      Sweep(machine, world);
    } else {
      TimeProducts(machine, world);
      TimeSteps(machine, world);
    }
  }
  return 0;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) { return sirocco::Main(argc, argv); }
