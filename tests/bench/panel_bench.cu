// The products of 3 to 64 rows (kernels/cuda/panel_product.h) at the shapes of three models,
// bfloat16: whether each is right; each alone over all layers' weights in turn, by the blocks that
// share a tile's columns and by the size of the ring; then all layers with their norms as one
// graph, a kernel that waits for so many cycles standing in for attention; then the same without
// norms between the products. Weights are read cold.
//
//   bazel build --config=opt --config=cuda //tests/bench:panel_bench
//   panel_bench [part of a model's name [normless]]
//
// With `normless`, only what that is about. Without Bazel:
//
//   nvcc -std=c++20 -O3 --expt-relaxed-constexpr -gencode=arch=compute_90a,code=sm_90a
//     -DSIROCCO_HOPPER=1 -I. -o panel_bench tests/bench/panel_bench.cu
//     kernels/cuda/panel_product.cu kernels/cuda/fused_norm.cu
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
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

// Which have no norm between them: output and gate and up, down and q, k and v.
struct Pairs {
  bool output = false, down = false;
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
  while (clock64() - from < s.cycles) {
  }
  // At the end: who does not wait for it reads what was there before.
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < s.p.count) s.p.out[i] = __float2bfloat16_rn(s.p.qkv[i]);
}

class Layers {
 public:
  Layers(const World& world, cudaStream_t stream, int multiprocessors) : world_(world) {
    context_.stream = stream;
    context_.multiprocessors = multiprocessors;
    context_.programmatic = true;
    const int64_t rows = kRows * int64_t{world.model().hidden};
    unnormed_ = Allocate<Element>(2 * rows);
    squares_ = Allocate<float>(4 * (rows / 64 + kRows));
  }
  ~Layers() {
    MUST(cudaFree(unnormed_));
    MUST(cudaFree(squares_));
  }
  Layers(const Layers&) = delete;
  Layers& operator=(const Layers&) = delete;

  // Where the stream is before a layer, and, with post-norms, behind its attention and after it:
  // there a layer moves it to the other buffer, as the plans do.
  Rows StreamOf(int layer) const {
    return layer % 2 == 0 ? world_.OutputOf(1, 0).hidden : world_.DownOf(1, 0).hidden;
  }
  OutputResidualParams OutputOf(int rows, int layer) const {
    OutputResidualParams p = world_.OutputOf(rows, layer);
    p.hidden = StreamOf(layer);
    return p;
  }
  NormGateUpParams GateUpOf(int rows, int layer) const {
    NormGateUpParams p = world_.GateUpOf(rows, layer);
    p.hidden = StreamOf(layer);
    if (p.sum.data != nullptr) p.sum = StreamOf(layer + 1);
    return p;
  }
  DownResidualParams DownOf(int rows, int layer) const {
    DownResidualParams p = world_.DownOf(rows, layer);
    p.hidden = StreamOf(layer + 1);
    return p;
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
    const OutputResidualParams o = OutputOf(rows, layer);
    PanelProductParams p;
    p.rows = rows;
    p.in = o.attention;
    p.weight = world_.table()[layer].o;
    p.add = o.delta.data == nullptr;
    p.out = p.add ? o.hidden : o.delta;
    return p;
  }
  PanelProductParams GateUp(int rows, int layer) const {
    const NormGateUpParams g = GateUpOf(rows, layer);
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
    const DownResidualParams d = DownOf(rows, layer);
    PanelProductParams p;
    p.rows = rows;
    p.in = d.in;
    p.weight = world_.table()[layer].down;
    p.add = d.delta.data == nullptr;
    p.out = p.add ? d.hidden : d.delta;
    return p;
  }
  cuda::DownEndParams DownEnd(int rows, int layer) const {
    const DownResidualParams d = DownOf(rows, layer);
    cuda::DownEndParams p;
    p.rows = rows;
    p.layer = d.layer;
    p.in = d.in;
    p.hidden = d.hidden;
    p.delta = d.delta;
    p.next_norm = world_.table()[layer].attention_norm;
    p.normed = GateUpOf(rows, layer).normed;
    return p;
  }

  // ---- Without norms between them. The first layer's q, k and v read normed rows, and the last
  // layer's down is normed: the LM head reads that ----
  PanelProductParams UnnormedQkv(int rows, int layer) const {
    PanelProductParams p = Qkv(rows, layer);
    if (layer == 0) return p;
    const DownResidualParams d = DownOf(rows, layer - 1);
    return Reads(p, d.hidden, d.delta, d.hidden);
  }
  PanelProductParams UnnormedOutput(int rows, int layer) const {
    const LayerParams& l = world_.table()[layer];
    return Leaves(Output(rows, layer), OutputOf(rows, layer).hidden, l.attention_post_norm,
                  l.mlp_norm);
  }
  PanelProductParams UnnormedGateUp(int rows, int layer) const {
    const NormGateUpParams g = GateUpOf(rows, layer);
    return Reads(GateUp(rows, layer), g.hidden, g.delta, g.sum);
  }
  // As if another layer came after each.
  PanelProductParams UnnormedDown(int rows, int layer) const {
    const LayerParams& l = world_.table()[layer];
    return Leaves(Down(rows, layer), DownOf(rows, layer).hidden, l.mlp_post_norm,
                  world_.table()[std::min(layer + 1, world_.model().layers - 1)].attention_norm);
  }
  void NormlessStep(int rows, const Tuning& tuning, int cycles, const Pairs& pairs) const {
    const int layers = world_.model().layers;
    for (int layer = 0; layer < layers; ++layer) {
      Launch(pairs.down ? UnnormedQkv(rows, layer) : Qkv(rows, layer), tuning.qkv);
      Attend(rows, layer, cycles);
      if (pairs.output) {
        Launch(UnnormedOutput(rows, layer), tuning.output);
        Launch(UnnormedGateUp(rows, layer), tuning.gate_up);
      } else {
        Launch(Output(rows, layer), tuning.output);
        MUST(LaunchNorms(GateUpOf(rows, layer), context_));
        Launch(GateUp(rows, layer), tuning.gate_up);
      }
      if (pairs.down && layer + 1 < layers) {
        Launch(UnnormedDown(rows, layer), tuning.down);
      } else {
        Launch(Down(rows, layer), tuning.down);
        MUST(LaunchNorms(DownEnd(rows, layer), context_));
      }
    }
  }
  // Which the program has.
  Pairs PairsOf(int rows) const {
    return {TakesPanels(Output(rows, 1)) && TakesPanels(GateUp(rows, 1)) &&
                TakesUnnormed(UnnormedGateUp(rows, 1)),
            TakesPanels(Down(rows, 1)) && TakesPanels(Qkv(rows, 1)) &&
                TakesUnnormed(UnnormedQkv(rows, 1))};
  }

  // Of two products, the one that leaves and the one that reads, from what World fills: the largest
  // difference of the outputs over the largest of them, by sums in float32 of one thread each and
  // norms in double precision. `bits` becomes false where two runs differ.
  double NormlessError(int rows, bool attention, int split, bool& bits) const {
    const PanelProductParams first = attention ? UnnormedOutput(rows, 1) : UnnormedDown(rows, 1);
    const PanelProductParams second = attention ? UnnormedGateUp(rows, 1) : UnnormedQkv(rows, 2);
    const Rows hidden = attention ? OutputOf(rows, 1).hidden : DownOf(rows, 1).hidden;
    Rows sum = hidden;
    if (second.unnormed.sum != nullptr) sum.data = second.unnormed.sum;
    const int width = hidden.width;
    const auto fill = [&] {
      world_.FillRows();
      // As large as what joins it, where that is not normed.
      if (first.leaves.post == nullptr) {
        FillFloats(static_cast<float*>(hidden.data), int64_t{rows} * width, 0.003f);
      }
      MUST(cudaMemset(unnormed_, 0xff, int64_t{2} * rows * width * sizeof(Element)));
      MUST(cudaMemset(squares_, 0xff, 4 * rows * sizeof(float)));
      MUST(cudaDeviceSynchronize());
    };
    fill();
    Floats stream = Download(hidden, rows);
    const Floats before = stream;
    Floats delta = Want(first.in, first.weight, rows);
    const Floats next = Download(first.leaves.next, DType::kFloat32, width);
    const Floats post = first.leaves.post == nullptr
                            ? Floats()
                            : Download(first.leaves.post, DType::kFloat32, width);
    const auto inverse = [&](const Floats& x, int row) {
      double squares = 0;
      for (int i = 0; i < width; ++i) squares += std::pow(x[int64_t{row} * width + i], 2.0);
      return 1 / std::sqrt(squares / width + second.unnormed.epsilon);
    };
    std::vector<Element> normed(stream.size());
    for (int row = 0; row < rows; ++row) {
      const double joins = post.empty() ? 1 : inverse(delta, row);
      for (int i = 0; i < width; ++i) {
        const size_t at = size_t{static_cast<size_t>(row)} * width + i;
        delta[at] *= joins * (post.empty() ? 1 : post[i]);
        stream[at] += delta[at];
      }
      const double divides = inverse(stream, row);
      for (int i = 0; i < width; ++i) {
        const size_t at = size_t{static_cast<size_t>(row)} * width + i;
        normed[at] = __double2bfloat16(stream[at] * divides * next[i]);
      }
    }
    Element* const in = Allocate<Element>(normed.size());
    MUST(cudaMemcpy(in, normed.data(), normed.size() * sizeof(Element), cudaMemcpyHostToDevice));
    const Rows in_rows = {in, kDType, width};
    Floats want = Want(in_rows, second.weight, rows);
    if (second.up.data != nullptr) Gate(second.activation, Want(in_rows, second.up, rows), want);
    MUST(cudaFree(in));

    Floats got[2], joined[2];
    for (int run = 0; run < 2; ++run) {
      fill();
      Launch(first, {split});
      Launch(second, {second.up.data == nullptr ? split : 0});
      got[run] = Download(second.out, rows);
      joined[run] = Download(sum, rows);
      for (size_t i = 0; i < joined[run].size(); ++i) joined[run][i] -= before[i];
    }
    const auto same = [](const Floats& a, const Floats& b) {
      return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    bits = bits && same(got[0], got[1]) && same(joined[0], joined[1]);
    const double errors[] = {ErrorOf(got[0], want), ErrorOf(joined[0], delta)};
    return std::isnan(errors[0]) || errors[0] > errors[1] ? errors[0] : errors[1];
  }
  // The same of all layers: of the stream and the normed rows that are left, with and without norm
  // kernels; without them also where attention is late.
  double ChainError(int rows, const Pairs& pairs, bool& bits) const {
    const Rows last = StreamOf(world_.model().layers);
    Floats stream[3], normed[3];
    for (int run = 0; run < 3; ++run) {
      world_.FillRows();
      MUST(cudaDeviceSynchronize());
      if (run == 0) {
        Step(rows, {}, 0);
      } else {
        NormlessStep(rows, {}, run == 1 ? 0 : 40000, pairs);
      }
      stream[run] = Download(last, rows);
      normed[run] = Download(GateUpOf(rows, 0).normed, rows);
    }
    bits = bits && stream[1] == stream[2] && normed[1] == normed[2];
    const double errors[] = {ErrorOf(stream[1], stream[0]), ErrorOf(normed[1], normed[0])};
    return std::isnan(errors[0]) || errors[0] > errors[1] ? errors[0] : errors[1];
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
      if (has('a')) Attend(rows, layer, cycles);
      if (has('o')) Launch(Output(rows, layer), tuning.output);
      if (has('n')) MUST(LaunchNorms(GateUpOf(rows, layer), context_));
      if (has('g')) Launch(GateUp(rows, layer), tuning.gate_up);
      if (has('d')) Launch(Down(rows, layer), tuning.down);
      if (has('n')) MUST(LaunchNorms(DownEnd(rows, layer), context_));
    }
  }
  void Attend(int rows, int layer, int cycles) const {
    const NormQkvParams q = world_.QkvOf(rows, layer);
    const int count = rows * world_.model().q_rows();
    MUST(LaunchKernel(SpinKernel, dim3((count + 255) / 256), dim3(256), 0, context_,
                      StandInSpin{{static_cast<const float*>(q.qkv.data),
                                   static_cast<Element*>(OutputOf(rows, 0).attention.data), count},
                                  cycles}));
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
    if (p.up.data != nullptr) Gate(p.activation, Want(p.in, p.up, p.rows), want);
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
  // gate = activation(gate) * up
  static void Gate(Activation activation, const Floats& up, Floats& gate) {
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = gate[i];
      const double activated =
          activation == Activation::kSilu
              ? g / (1 + std::exp(-g))
              : 0.5 * g * (1 + std::tanh(0.7978845608028654 * (g + 0.044715 * g * g * g)));
      gate[i] = static_cast<float>(activated * up[i]);
    }
  }
  PanelProductParams Reads(PanelProductParams p, const Rows& hidden, const Rows& added,
                           const Rows& sum) const {
    p.in.data = unnormed_;
    p.unnormed.squares = squares_;
    p.unnormed.epsilon = world_.table()[0].norm_epsilon;
    p.unnormed.post = world_.model().post_norms;
    if (p.unnormed.post) {
      p.unnormed.hidden = static_cast<const float*>(hidden.data);
      p.unnormed.added = static_cast<const float*>(added.data);
      p.unnormed.sum = static_cast<float*>(sum.data);
    }
    return p;
  }
  PanelProductParams Leaves(PanelProductParams p, const Rows& hidden, const float* post,
                            const float* next) const {
    p.leaves.post = post;
    p.leaves.next = next;
    if (post != nullptr) p.leaves.hidden = static_cast<const float*>(hidden.data);
    p.leaves.rows = unnormed_;
    p.leaves.squares = squares_;
    return p;
  }

  const World& world_;
  LaunchContext context_;
  mutable PanelMaps maps_;  // only keeps what it has made
  Element* unnormed_;  // [2 * kRows, hidden]
  float* squares_;     // [tiles, kRows, 4]
};

// What is fastest: gate and up's and down's rings in all combinations, since their blocks find room
// side by side or do not; with the best of these the others' rings; then the blocks that share an
// output's columns.
void SweepRings(const Layers& layers, const Model& model, int rows, int cycles,
                const Pairs& pairs) {
  using Of = PanelTuning Tuning::*;
  Tuning best;
  double least = 0;
  const auto attempt = [&](const Tuning& tuning) {
    const double us =
        layers.Time([&] { layers.NormlessStep(rows, tuning, cycles, pairs); }) / model.layers;
    std::printf(" %.2f", us);
    if (least > 0 && us >= least) return;
    least = us;
    best = tuning;
  };
  const auto grid = [&](const char* name, Of a, const std::vector<int>& a_rings, Of b,
                        const std::vector<int>& b_rings) {
    const Tuning base = best;
    for (const int ring : a_rings) {
      std::printf("\n      %s %d and", name, ring);
      for (const int other : b_rings) {
        Tuning tuning = base;
        (tuning.*a).ring = ring;
        (tuning.*b).ring = other;
        std::printf(" %d:", other);
        attempt(tuning);
      }
    }
  };
  std::printf("    rings without%s%s norms, us a layer: as they are",
              pairs.output ? " gate_up's" : "", pairs.down ? " qkv's" : "");
  attempt(best);
  grid("gate_up, down", &Tuning::gate_up, {72, 88, 104, 112, 124, 144, 176, 208}, &Tuning::down,
       {64, 88, 96, 104, 112, 128, 160, 208});
  grid("output, qkv", &Tuning::output, {56, 88, 112, 208}, &Tuning::qkv, {56, 88, 112, 160, 208});
  const std::pair<const char*, Of> splits[] = {
      {"qkv", &Tuning::qkv}, {"output", &Tuning::output}, {"down", &Tuning::down}};
  for (const auto& [name, of] : splits) {
    std::printf("\n      %s's blocks", name);
    const Tuning base = best;
    for (const int split : {1, 2, 4, 8}) {
      Tuning tuning = base;
      (tuning.*of).split = split;
      std::printf(" %d:", split);
      attempt(tuning);
    }
  }
  std::printf(
      "\n    BEST %s, %d rows, without%s%s norms: %.2f us a layer; ring, blocks: qkv %d, %d; output "
      "%d, %d; gate_up %d; down %d, %d (0: as it is)\n",
      model.name, rows, pairs.output ? " gate_up's" : "", pairs.down ? " qkv's" : "", least,
      best.qkv.ring, best.qkv.split, best.output.ring, best.output.split, best.gate_up.ring,
      best.down.ring, best.down.split);
}

// What there is without norms between the products, timed where it is wrong, too; whether it is
// right.
bool Normless(const Layers& layers, const Model& model) {
  bool right = true;
  for (const bool attention : {true, false}) {
    for (const int split : {1, 2, 4, 8}) {
      double worst = 0;
      bool bits = true;
      for (const int rows : {3, 4, 5, 8, 13, 16, 27, 32}) {
        const Pairs has = layers.PairsOf(rows);
        if (!(attention ? has.output : has.down)) continue;
        const double error = layers.NormlessError(rows, attention, split, bits);
        worst = error > worst || std::isnan(error) ? error : worst;
      }
      std::printf("  normless %s, split %d: error %.1e%s\n",
                  attention ? "output, gate_up" : "down, qkv", split, worst,
                  bits ? "" : ", DIFFERENT BITS");
      right = right && worst < 1e-2 && bits;
    }
  }
  for (const int rows : {3, 4, 8, 16, 32, 64}) {
    const Pairs has = layers.PairsOf(rows);
    if (!has.output && !has.down) {
      SweepRings(layers, model, rows, 12000, {});
      continue;
    }
    bool bits = true;
    const double error = layers.ChainError(rows, has, bits);
    std::printf("  normless, %2d rows: all layers' difference %.1e%s\n", rows, error,
                bits ? "" : ", DIFFERENT BITS");
    right = right && error < 6e-2 && bits;
    for (const int cycles : {0, 12000}) {
      std::printf("    attention %d cycles, us a layer: with norms %.2f", cycles,
                  layers.Time([&] { layers.Step(rows, {}, cycles); }) / model.layers);
      for (const Pairs& pairs : {Pairs{true, false}, Pairs{false, true}, Pairs{true, true}}) {
        if ((pairs.output && !has.output) || (pairs.down && !has.down)) continue;
        std::printf(
            "; without%s%s: %.2f", pairs.output ? " gate_up's" : "", pairs.down ? " qkv's" : "",
            layers.Time([&] { layers.NormlessStep(rows, {}, cycles, pairs); }) / model.layers);
      }
      std::printf("\n");
    }
    SweepRings(layers, model, rows, 12000, {});
    for (const Pairs& pairs : {Pairs{true, false}, Pairs{false, true}, Pairs{true, true}}) {
      // Both, or the one that there is.
      if (pairs.output != has.output || pairs.down != has.down) continue;
      SweepRings(layers, model, rows, 12000, pairs);
    }
    std::fflush(stdout);
  }
  return right;
}

int Main(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "";
  const bool normless = argc > 2 && std::string(argv[2]) == "normless";
  if (argc > 3 || (argc > 2 && !normless)) {
    std::fprintf(stderr, "usage: panel_bench [part of a model's name [normless]]\n");
    return 2;
  }
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream;
  MUST(cudaStreamCreate(&stream));
  std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
  bool right = true;
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
    if (normless) {
      right = Normless(layers, model) && right;
      continue;
    }
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
    right = Normless(layers, model) && right;
  }
  if (!right) std::printf("WRONG: see the errors above\n");
  return right ? 0 : 1;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) { return sirocco::Main(argc, argv); }
