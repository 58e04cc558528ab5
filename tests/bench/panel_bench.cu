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

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/bench/panel_layers.cuh"

namespace sirocco {
namespace {

constexpr Model kModels[] = {
    {"gemma3-1b", 26, 1152, 4, 1, 256, 6912, 262144, true},
    {"llama3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, false},
    {"llama3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, false},
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
