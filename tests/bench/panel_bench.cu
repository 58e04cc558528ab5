// The products of 3 to 64 rows (kernels/cuda/panel_product.h) at the shapes of three models,
// bfloat16: whether each is right; each alone over all layers' weights in turn, by the blocks that
// share a tile's columns and by the size of the ring; then all layers with their norms as one
// graph, a kernel that waits for so many cycles standing in for attention. Weights are read cold.
//
//   bazel build --config=opt --config=cuda //tests/bench:panel_bench
//   panel_bench [part of a model's name]
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/panel_product.h"
#include "tests/bench/graph_time.cuh"
#include "tests/bench/stream_check.cuh"
#include "tests/bench/stream_world.cuh"

namespace sirocco {
namespace {

using cuda::PanelMaps;
using cuda::PanelProductParams;
using cuda::PanelTuning;
using cuda::hopper::LaunchNorms;
using cuda::hopper::LaunchPanelProduct;

constexpr Model kModels[] = {
    {"gemma3-1b", 26, 1152, 4, 1, 256, 6912, 262144, true},
    {"llama3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, false},
    {"llama3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, false},
};

struct Tuning {
  PanelTuning qkv, output, gate_up, down;
};

struct StandInSpin {
  StandInParams p;
  int cycles;
};
// Attention as far as others see it: so many cycles after what it waits for.
__global__ void SpinKernel(const __grid_constant__ StandInSpin s) {
  cuda::SIROCCO_CUDA_PATH::WaitForDependency();
  cuda::SIROCCO_CUDA_PATH::LaunchDependents();
  const int64_t from = clock64();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < s.p.count) s.p.out[i] = __float2bfloat16_rn(s.p.qkv[i]);
  while (clock64() - from < s.cycles) {
  }
}

class Layers {
 public:
  Layers(const World& world, cudaStream_t stream, int multiprocessors) : world_(world) {
    context_.stream = stream;
    context_.multiprocessors = multiprocessors;
    context_.programmatic = true;
  }

  PanelProductParams Qkv(int rows, int layer) const {
    const NormQkvParams q = world_.QkvOf(rows, layer);
    PanelProductParams p;
    p.rows = rows;
    p.in = q.normed;
    p.weight = world_.table()[layer].q;
    p.weight.rows = q.qkv.width;
    p.out = q.qkv;
    return p;
  }
  PanelProductParams Output(int rows, int layer) const {
    const OutputResidualParams o = world_.OutputOf(rows, layer);
    PanelProductParams p;
    p.rows = rows;
    p.in = o.attention;
    p.weight = world_.table()[layer].o;
    p.add = o.delta.data == nullptr;
    p.out = p.add ? o.hidden : o.delta;
    return p;
  }
  PanelProductParams GateUp(int rows, int layer) const {
    const NormGateUpParams g = world_.GateUpOf(rows, layer);
    PanelProductParams p;
    p.rows = rows;
    p.in = g.normed;
    p.weight = world_.table()[layer].gate;
    p.up = world_.table()[layer].up;
    p.activation = world_.table()[layer].activation;
    p.out = g.out;
    return p;
  }
  PanelProductParams Down(int rows, int layer) const {
    const DownResidualParams d = world_.DownOf(rows, layer);
    PanelProductParams p;
    p.rows = rows;
    p.in = d.in;
    p.weight = world_.table()[layer].down;
    p.add = d.delta.data == nullptr;
    p.out = p.add ? d.hidden : d.delta;
    return p;
  }
  cuda::DownEndParams DownEnd(int rows, int layer) const {
    const DownResidualParams d = world_.DownOf(rows, layer);
    cuda::DownEndParams p;
    p.rows = rows;
    p.layer = d.layer;
    p.in = d.in;
    p.hidden = d.hidden;
    p.delta = d.delta;
    p.next_norm = world_.table()[layer].attention_norm;
    p.normed = world_.GateUpOf(rows, layer).normed;
    return p;
  }

  void Launch(const PanelProductParams& p, const PanelTuning& tuning = {}) const {
    MUST(LaunchPanelProduct(p, maps_, context_, tuning));
  }
  // skip: 'n' norms, 'q', 'a' attention, 'o', 'g', 'd'.
  void Step(int rows, const Tuning& tuning, int cycles, const std::string& skip = "") const {
    const Model& m = world_.model();
    const auto has = [&](char c) { return skip.find(c) == std::string::npos; };
    for (int layer = 0; layer < m.layers; ++layer) {
      if (has('q')) Launch(Qkv(rows, layer), tuning.qkv);
      if (has('a')) {
        const NormQkvParams q = world_.QkvOf(rows, layer);
        const int count = rows * m.q_rows();
        MUST(LaunchKernel(
            SpinKernel, dim3((count + 255) / 256), dim3(256), 0, context_,
            StandInSpin{{static_cast<const float*>(q.qkv.data),
                         static_cast<Element*>(world_.OutputOf(rows, 0).attention.data), count},
                        cycles}));
      }
      if (has('o')) Launch(Output(rows, layer), tuning.output);
      if (has('n')) MUST(LaunchNorms(world_.GateUpOf(rows, layer), context_));
      if (has('g')) Launch(GateUp(rows, layer), tuning.gate_up);
      if (has('d')) Launch(Down(rows, layer), tuning.down);
      if (has('n')) MUST(LaunchNorms(DownEnd(rows, layer), context_));
    }
  }
  double Time(const std::function<void()>& work) const {
    return GraphMicroseconds(context_.stream, work);
  }

  Floats Want(const Rows& in, const Matrix& w, int rows) const {
    float* out = Allocate<float>(int64_t{rows} * w.rows);
    PlainParams p = {static_cast<const Element*>(in.data),
                     static_cast<const Element*>(w.data),
                     out,
                     rows,
                     w.rows,
                     w.cols};
    const int64_t count = int64_t{rows} * w.rows;
    PlainProductKernel<<<static_cast<unsigned>((count + 127) / 128), 128>>>(p);
    MUST(cudaGetLastError());
    Floats want = Download(out, DType::kFloat32, count);
    MUST(cudaFree(out));
    return want;
  }
  // The largest difference over the largest value.
  double Error(const PanelProductParams& p, const PanelTuning& split) const {
    world_.FillRows();
    Floats want = Want(p.in, p.weight, p.rows);
    if (p.up.data != nullptr) {
      const Floats up = Want(p.in, p.up, p.rows);
      for (size_t i = 0; i < want.size(); ++i) {
        const double g = want[i];
        const double activated =
            p.activation == Activation::kSilu
                ? g / (1 + std::exp(-g))
                : 0.5 * g * (1 + std::tanh(0.7978845608028654 * (g + 0.044715 * g * g * g)));
        want[i] = static_cast<float>(activated * up[i]);
      }
    }
    if (p.add) {
      const Floats before = Download(p.out, p.rows);
      for (size_t i = 0; i < want.size(); ++i) want[i] += before[i];
    } else {
      MUST(cudaMemset(p.out.data, 0xff, int64_t{p.rows} * p.out.width * BytesOf(p.out.dtype)));
    }
    Launch(p, split);
    MUST(cudaStreamSynchronize(context_.stream));
    return ErrorOf(Download(p.out, p.rows), want);
  }

 private:
  const World& world_;
  LaunchContext context_;
  mutable PanelMaps maps_;  // only keeps what it has made
};

int Main(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "";
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream;
  MUST(cudaStreamCreate(&stream));
  std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
  for (const Model& model : kModels) {
    if (std::string(model.name).find(wanted) == std::string::npos) continue;
    const World world(model);
    const Layers layers(world, stream, properties.multiProcessorCount);
    using Make = PanelProductParams (Layers::*)(int, int) const;
    const std::pair<const char*, Make> products[] = {{"qkv", &Layers::Qkv},
                                                     {"output", &Layers::Output},
                                                     {"gate_up", &Layers::GateUp},
                                                     {"down", &Layers::Down}};
    std::printf("%s\n", model.name);
    for (const auto& [name, make] : products) {
      for (const int split : {1, 2, 4, 8}) {
        if (make == &Layers::GateUp && split > 1) break;
        double worst = 0;
        for (const int rows : {5, 8, 13, 16, 27, 32, 50, 64}) {
          const double error = layers.Error((layers.*make)(rows, 1), {split});
          worst = error > worst || std::isnan(error) ? error : worst;
        }
        std::printf("  %-8s split %d: error %.1e; us by KiB of ring:", name, split, worst);
        for (const int rows : {16, 64}) {
          std::printf("  %2d rows", rows);
          for (const int ring : {80, 112, 200}) {
            const double us = layers.Time([&] {
              for (int l = 0; l < model.layers; ++l) {
                layers.Launch((layers.*make)(rows, l), {split, ring});
              }
            }) / model.layers;
            std::printf("  %d: %6.2f", ring, us);
          }
        }
        std::printf("\n");
        if (!(worst < 1e-2)) return 1;
      }
    }
    for (const int rows : {8, 16, 32, 64}) {
      for (const int cycles : {0, 12000}) {
        const auto time = [&](const Tuning& tuning, const std::string& skip) {
          return layers.Time([&] { layers.Step(rows, tuning, cycles, skip); }) / model.layers;
        };
        std::printf(
            "  layer, %2d rows, attention %d cycles: %.2f us; by gate_up's ring/the others'", rows,
            cycles, time({}, ""));
        for (const int gate_up : {80, 104, 144, 176}) {
          for (const int plain : {80, 112}) {
            Tuning tuning;
            tuning.qkv = tuning.output = tuning.down = {0, plain};
            tuning.gate_up = {0, gate_up};
            std::printf("  %d/%d: %.2f", gate_up, plain, time(tuning, ""));
          }
        }
        std::printf("; without");
        for (const char* skip : {"n", "q", "a", "o", "g", "d"}) {
          std::printf("  %s: %.2f", skip, time({}, skip));
        }
        std::printf("\n");
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) { return sirocco::Main(argc, argv); }
