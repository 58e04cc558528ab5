// The streamed products (kernels/cuda/stream.h) at the shapes of three models, bfloat16, 1 to 8
// rows: whether each is right, its time, GB/s of weights, and the share of a plain read stream that
// is measured first. Then a whole decode step but for attention, in one graph, with and without the
// programmatic attribute. Weights are read cold: each launch takes others, over more than four
// times the L2 cache.
//
//   bazel build --config=opt --config=cuda //tests/bench:stream_bench
//   stream_bench [--sweep] [part of a model's name]
//
// --sweep: the step at 1 and 4 rows over the kernel's tuning instead.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/stream.h"
#include "tests/bench/graph_time.cuh"
#include "tests/bench/stream_check.cuh"
#include "tests/bench/stream_world.cuh"

namespace sirocco {
namespace {

using cuda::SIROCCO_CUDA_PATH::LaunchReadStream;

constexpr Model kModels[] = {
    {"gemma3-1b", 26, 1152, 4, 1, 256, 6912, 262144, true},
    {"llama3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, false},
    {"llama3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, false},
};

struct Machine {
  cudaStream_t stream;
  int multiprocessors;
  double bytes_a_second = 0;  // of a plain read stream
  float* scratch;
  uint32_t* counters;

  LaunchContext Context(bool programmatic) const {
    LaunchContext context;
    context.stream = stream;
    context.multiprocessors = multiprocessors;
    context.programmatic = programmatic;
    context.scratch = scratch;
    context.counters = counters;
    return context;
  }

  // Microseconds of what `work` enqueues, as a graph; the median of 15.
  double Time(const std::function<void()>& work) const {
    return GraphMicroseconds(stream, work);
  }
};

double ReadBandwidth(const Machine& machine) {
  constexpr size_t kBytes = size_t{2} << 30;
  char* data = Allocate<char>(kBytes);
  const LaunchContext context = machine.Context(false);
  const double us = machine.Time([&] {
    MUST(LaunchReadStream(data, kBytes, machine.counters, context));  // zeros: it stores nothing
  });
  MUST(cudaFree(data));
  return kBytes / us * 1e6;
}

// Rows whose widest product the stream takes: of 1, 2, 4, 8.
int MostRows(const Machine& machine, const World& world, const StreamTuning& tuning) {
  const Model& m = world.model();
  int rows = kRows;
  while (rows > 0 && !cuda::SIROCCO_CUDA_PATH::PlanStream({rows, m.hidden, 1, m.intermediate, 2},
                                                          tuning, machine.multiprocessors)
                          .fits) {
    rows /= 2;
  }
  return rows;
}

// Whether every product is right, of all rows that the stream takes.
bool Check(const Machine& machine, const World& world) {
  const LaunchContext context = machine.Context(false);
  const std::pair<const char*, double (Checker::*)() const> products[] = {
      {"qkv", &Checker::Qkv},
      {"output", &Checker::Output},
      {"gate_up", &Checker::GateUp},
      {"down", &Checker::Down},
      {"head", &Checker::Head}};
  bool right = true;
  for (const auto& [name, error_of] : products) {
    double worst = 0;
    for (int rows = 1; rows <= MostRows(machine, world, {}); ++rows) {
      const double error = (Checker(world, rows, world.model().layers - 1, context).*error_of)();
      if (!(error <= worst)) worst = error;
    }
    // Outputs of the weights' type are rounded to 2^-8.
    std::printf("  %-9s off by %.1e of the largest\n", name, worst);
    right = right && worst < 1e-2;
  }
  world.FillRows();
  return right;
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
      if (rows > MostRows(machine, world, {})) continue;
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
    if (rows > MostRows(machine, world, {})) continue;
    for (const bool programmatic : {false, true}) {
      const double us = machine.Time([&] { world.Step(rows, machine.Context(programmatic), {}); });
      Report(machine, "step", rows, programmatic, us, world.Bytes());
    }
  }
}

void Sweep(const Machine& machine, const World& world) {
  for (const int rows : {1, 4}) {
    for (const int tile_rows : {8, 16}) {
      const StreamTuning tuning = {tile_rows};
      if (rows > MostRows(machine, world, tuning)) continue;
      const LaunchContext context = machine.Context(true);
      const double us = machine.Time([&] { world.Step(rows, context, tuning); });
      const double head = machine.Time([&] { world.Head(rows, 0, context, tuning); });
      std::printf("  tile %2d: head %8.2f us;", tile_rows, head);
      Report(machine, "step", rows, true, us, world.Bytes());
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
    const World world(model);
    std::printf("%s: %.3f GB of weights\n", model.name, world.Bytes() / 1e9);
    if (!Check(machine, world)) return 1;
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
