// All layers of a model as panel_bench times them: weights and rows of a decode step of few rows, its
// products by panels with norms between them and without, and how far both are from plain sums.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
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

}  // namespace
}  // namespace sirocco
