// The products of many rows (wide_world.cuh) at the shapes of three models, bfloat16: whether each
// kernel is right, then its time beside cuBLASLt's best algorithm, which the activation's kernel
// follows where gate and up are multiplied. Weights are read from memory: there are several copies,
// taken in turn. Needs no Bazel, from the repository's root, where -I. finds its headers:
//
//   nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -DSIROCCO_HOPPER=1 -I.
//     tests/bench/wide_bench.cu kernels/cuda/gate_up_end.cu kernels/cuda/fused_norm.cu
//     kernels/cuda/kernel_attributes.cc -o wide_bench -lcublasLt
//   wide_bench check | rows MODEL [ROWS ...] | stream MODEL [ROWS ...] | chain [ROWS ...]
//
// check: against plain sums (wide_check.cuh). rows: each product alone. stream: output and down with
// the norms behind them, which add up the parts where they come in parts, the library's too. chain:
// the four products of all layers of llama3.1-8b one after the other, for 150 ms a turn, the
// library's and ours: what a GPU that is held to its power gives; with few rows also beside reads of
// a KV cache. All by turns.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/kernels.h"
#include "tests/bench/library.cuh"
#include "tests/bench/wide_check.cuh"
#include "tests/bench/wide_world.cuh"

namespace sirocco {
namespace {

// ---- Time -----------------------------------------------------------------------------------

// How often the first multiprocessor counts in a microsecond. A GPU that is held to its power runs
// at two thirds of its rate, so what takes longer has not always more to do.
__global__ void CountKernel(float* megahertz) {
  const auto nanoseconds = [] {
    uint64_t time;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
    return time;
  };
  const uint64_t from = nanoseconds();
  const int64_t first = clock64();
  uint64_t to = from;
  while (to - from < 20000) to = nanoseconds();
  *megahertz = static_cast<float>(clock64() - first) * 1e3f / static_cast<float>(to - from);
}

// One way to do something: what it enqueues for each of `count` copies, as one graph.
struct Way {
  std::string name;
  bool library = false;
  int count = 1;
  std::function<void(int)> enqueue;
  cudaGraphExec_t exec = nullptr;
  int times = 1;  // launches of the graph that make a measurement
  std::vector<double> found, megahertz;

  double us() const { return Median(found); }
  double rate() const { return Median(megahertz); }
  static double Median(std::vector<double> all) {
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
  }
};

// Measures all ways by turns, back and forth, so that each meets the GPU as hot as the others do:
// one after the other the first have up to 20% for themselves. `least`: milliseconds of each turn.
void Measure(std::vector<Way>& ways, int rounds, double least, cudaStream_t stream) {
  cudaEvent_t from, to;
  MUST(cudaEventCreate(&from));
  MUST(cudaEventCreate(&to));
  float* const megahertz = static_cast<float*>(Allocate(4));
  const auto run = [&](Way& way, int times) {
    MUST(cudaEventRecord(from, stream));
    for (int k = 0; k < times; ++k) MUST(cudaGraphLaunch(way.exec, stream));
    MUST(cudaEventRecord(to, stream));
    CountKernel<<<1, 1, 0, stream>>>(megahertz);
    MUST(cudaStreamSynchronize(stream));
    float ms = 0, rate = 0;
    MUST(cudaEventElapsedTime(&ms, from, to));
    MUST(cudaMemcpy(&rate, megahertz, 4, cudaMemcpyDeviceToHost));
    way.megahertz.push_back(rate);
    way.found.push_back(double(ms) * 1e3 / times / way.count);
  };
  for (Way& way : ways) {
    cudaGraph_t graph;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < way.count; ++i) way.enqueue(i);
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiate(&way.exec, graph, 0));
    MUST(cudaGraphDestroy(graph));
    run(way, 1);
    run(way, 1);
    way.times = std::max(1, static_cast<int>(least * 1e3 / (way.found.back() * way.count)));
    way.found.clear();
    way.megahertz.clear();
  }
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < ways.size(); ++i) {
      Way& way = ways[round % 2 == 0 ? i : ways.size() - 1 - i];
      run(way, way.times);
    }
  }
  for (Way& way : ways) MUST(cudaGraphExecDestroy(way.exec));
  MUST(cudaEventDestroy(from));
  MUST(cudaEventDestroy(to));
  MUST(cudaFree(megahertz));
}

bool Suits(const Variant& variant, int rows) {
  // Not where most of a cluster's rows would be missing.
  return rows > variant.rows / 2 && !(rows > 1024 && variant.rows < 256);
}

struct Choice {
  int variant = 0, parts = 1;
  WideChoice wide;
};

std::string NameOf(const Choice& c) {
  std::string name = kVariants[c.variant].name;
  if (c.parts > 1) name += " p" + std::to_string(c.parts);
  name += " g" + std::to_string(c.wide.group);
  return name;
}

Way Librarys(Library& library, const Work& work, int rows, const cublasLtMatmulAlgo_t& algorithm,
             const LaunchContext& context) {
  Way way;
  way.name = "library";
  way.library = true;
  way.count = work.copies();
  way.enqueue = [&library, &work, rows, algorithm, context](int i) {
    library.Run(work.Params(rows, i), algorithm, context);
  };
  return way;
}

Way Ours(const Work& work, int rows, const Choice& choice, const LaunchContext& context) {
  Way way;
  way.name = NameOf(choice);
  way.count = work.copies();
  way.enqueue = [&work, rows, choice, context](int i) {
    MUST(
        kVariants[choice.variant].launch(work.Params(rows, i, choice.parts), choice.wide, context));
  };
  return way;
}

std::vector<Choice> ChoicesOf(const Work& work, int rows) {
  std::vector<Choice> choices;
  for (int v = 0; v < static_cast<int>(std::size(kVariants)); ++v) {
    if (!Suits(kVariants[v], rows)) continue;
    for (const int parts : {1, 2, 4}) {
      if (parts > 1 && (!work.product().add || rows > 512)) continue;
      for (const int group : {4, 8}) {
        if (group > 4 && group / 2 * kVariants[v].rows >= rows) continue;  // the same
        choices.push_back({v, parts, {.group = group}});
      }
    }
  }
  return choices;
}

// ---- What is asked for ----------------------------------------------------------------------

// The ways there are at so many rows, the library's first.
void AllWays(Library& library, const Work& work, int rows, const LaunchContext& context,
             std::vector<Way>& ways) {
  const Answers answers = library.AnswersOf(work.Params(rows, 0));
  for (int a = 0; a < answers.count; ++a) {
    ways.push_back(Librarys(library, work, rows, answers.at[a], context));
  }
  for (const Choice& choice : ChoicesOf(work, rows)) {
    ways.push_back(Ours(work, rows, choice, context));
  }
}

const Way* Best(const std::vector<Way>& ways, bool library) {
  const Way* best = nullptr;
  for (const Way& way : ways) {
    if (way.library == library && (best == nullptr || way.us() < best->us())) best = &way;
  }
  return best;
}

// Of gate and up's sums.
int64_t LibraryScratch(const Model& model, int rows) {
  return int64_t{4} * rows * model.products[2].outputs;
}

int RowsAll(const std::string& wanted, std::vector<int> all, const LaunchContext& context) {
  if (all.empty()) all = {128, 192, 256, 512, 1024, 2048, 4096};
  const int most = *std::max_element(all.begin(), all.end());
  for (const Model& model : Models()) {
    if (model.name != wanted) continue;
    Library library(LibraryScratch(model, most));
    for (const Product& product : model.products) {
      const bool head = std::strcmp(product.name, "head") == 0;
      const Work work(product, head ? std::min(most, 256) : most, 0);
      for (const int rows : all) {
        if (head && rows > 256) continue;
        std::vector<Way> ways;
        AllWays(library, work, rows, context, ways);
        Measure(ways, 5, rows > 512 ? 6 : 2, context.stream);
        std::printf("%s %s %d rows:", model.name, product.name, rows);
        for (const Way& way : ways) {
          std::printf("  %s %.1f (%.0f)", way.name.c_str(), way.us(), way.rate());
        }
        const Way* const theirs = Best(ways, true);
        const Way* const ours = Best(ways, false);
        const auto rates = [&](const Way& way) {
          std::printf("%s %.1f us, %.0f TFLOP/s, %.0f GB/s, %.0f MHz", way.name.c_str(), way.us(),
                      work.Flop(rows) / way.us() * 1e-6, work.weight_bytes() / way.us() * 1e-3,
                      way.rate());
        };
        std::printf("\n= %s %s %d: ", model.name, product.name, rows);
        rates(*theirs);
        std::printf("; ");
        rates(*ours);
        std::printf("; %.2f of the library's time\n", ours->us() / theirs->us());
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

// The norms behind a product of the stream, as behind down; with post-norms, of what joins it too.
class StreamNorms {
 public:
  StreamNorms(int most_rows, int width, bool post) : post_(post) {
    const int64_t bytes = int64_t{most_rows} * width * 4;
    for (void** rows : {&end_.hidden.data, &end_.delta.data, &end_.normed.data}) {
      *rows = Allocate(bytes);
      MUST(cudaMemset(*rows, 0, bytes));
    }
    end_.hidden = {end_.hidden.data, DType::kFloat32, width};
    end_.delta = {end_.delta.data, DType::kFloat32, width};
    end_.normed = {end_.normed.data, DType::kBFloat16, width};
    weight_ = static_cast<float*>(Allocate(width * 4));
    FillKernel<<<64, 256>>>(weight_, width, 1.0f, 6);
    LayerParams layer;
    layer.mlp_post_norm = post ? weight_ : nullptr;
    layer.norm_epsilon = 1e-6f;
    layer_ = static_cast<LayerParams*>(Allocate(sizeof(layer)));
    MUST(cudaMemcpy(layer_, &layer, sizeof(layer), cudaMemcpyHostToDevice));
    end_.layer.table = layer_;
    end_.next_norm = weight_;
  }
  ~StreamNorms() {
    for (void* p : {end_.hidden.data, end_.delta.data, end_.normed.data,
                    static_cast<void*>(weight_), static_cast<void*>(layer_)}) {
      cudaFree(p);
    }
  }
  StreamNorms(const StreamNorms&) = delete;
  StreamNorms& operator=(const StreamNorms&) = delete;

  // Of what `p` has left.
  void Run(const WideProductParams& p, const LaunchContext& context) const {
    cuda::DownEndParams end = end_;
    end.rows = p.rows;
    if (p.parts > 1) {
      end.sums = static_cast<const float*>(p.out.data);
      end.parts = p.parts;
    } else {
      (post_ ? end.delta : end.hidden).data = p.out.data;
    }
    MUST(cuda::hopper::LaunchNorms(end, context));
  }

 private:
  const bool post_;
  cuda::DownEndParams end_;
  float* weight_ = nullptr;
  LayerParams* layer_ = nullptr;
};

int StreamAll(const std::string& wanted, std::vector<int> all, const LaunchContext& context) {
  if (all.empty()) all = {65, 80, 96, 128, 160, 192, 224, 256};
  const int most = *std::max_element(all.begin(), all.end());
  for (const Model& model : Models()) {
    if (model.name != wanted) continue;
    Library library(LibraryScratch(model, most));
    const bool post = wanted == "gemma3-1b";
    for (const int at : {1, 3}) {
      Product product = model.products[at];
      product.post = post;
      const Work work(product, most, 0);
      const StreamNorms norms(most, product.outputs, post);
      for (const int rows : all) {
        std::vector<Way> ways;
        for (const int parts : {1, kMostParts}) {
          const Answers answers = library.AnswersOf(work.Params(rows, 0, parts));
          for (int a = 0; a < answers.count; ++a) {
            Way way;
            way.name = parts > 1 ? "library p4" : "library";
            way.library = true;
            way.count = work.copies();
            way.enqueue = [&, rows, parts, algorithm = answers.at[a]](int i) {
              library.Run(work.Params(rows, i, parts), algorithm, context);
              norms.Run(work.Params(rows, i, parts), context);
            };
            ways.push_back(way);
          }
        }
        for (const Choice& choice : ChoicesOf(work, rows)) {
          if (choice.parts == 1 || choice.wide.group > 4) continue;
          Way way;
          way.name = NameOf(choice);
          way.count = work.copies();
          way.enqueue = [&, rows, choice](int i) {
            const WideProductParams p = work.Params(rows, i, choice.parts);
            MUST(kVariants[choice.variant].launch(p, choice.wide, context));
            norms.Run(p, context);
          };
          ways.push_back(way);
        }
        Measure(ways, 5, 2, context.stream);
        std::stable_sort(ways.begin(), ways.end(),
                         [](const Way& a, const Way& b) { return a.us() < b.us(); });
        std::printf("%s %s %d rows:", model.name, product.name, rows);
        for (const Way& way : ways) {
          std::printf("  %s %.1f (%.0f)", way.name.c_str(), way.us(), way.rate());
        }
        std::printf("\n= %s %s %d:", model.name, product.name, rows);
        for (const char* kind : {"library", "library p4", ""}) {
          for (const Way& way : ways) {
            if (*kind != 0 ? way.name != kind : way.library) continue;
            std::printf("  %s %.1f", way.name.c_str(), way.us());
            break;
          }
        }
        std::printf("\n");
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

// Reads as attention does, which leaves the matrix units idle.
__global__ void ReadKernel(const uint4* from, int64_t count, uint32_t* to) {
  uint32_t sum = 0;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const uint4 x = from[i];
    sum += x.x ^ x.y ^ x.z ^ x.w;
  }
  if (sum == 0x12345678) *to = sum;
}

int ChainAll(std::vector<int> all, const LaunchContext& context) {
  if (all.empty()) all = {256, 2048, 4096, 8192};
  const Model model = Models()[0];
  Library library(LibraryScratch(model, *std::max_element(all.begin(), all.end())));
  constexpr int kLayers = 32;
  // What attention of 256 rows reads in a layer, 150 tokens each; not for prompts.
  constexpr int64_t kRead = int64_t{160} << 20;
  const uint4* const cache = static_cast<const uint4*>(Allocate(kRead));
  for (const int rows : all) {
    std::vector<Work*> works;
    std::vector<Way> best[2];
    for (int i = 0; i < 4; ++i) {
      works.push_back(new Work(model.products[i], rows, 8));
      std::vector<Way> ways;
      AllWays(library, *works[i], rows, context, ways);
      Measure(ways, 5, rows > 512 ? 10 : 3, context.stream);
      for (const bool ours : {false, true}) {
        best[ours].push_back(*Best(ways, !ours));
        std::printf("chain %d rows: %s %s %.1f us\n", rows, model.products[i].name,
                    best[ours].back().name.c_str(), best[ours].back().us());
      }
    }
    for (const bool reads : {false, true}) {
      if (reads && rows > 512) continue;
      std::vector<Way> chains;
      // Bit i: product i is ours.
      for (const int mask : {0, 4, 12, 14, 15}) {
        Way way;
        for (int i = 0; i < 4; ++i) {
          if ((mask >> i & 1) != 0) way.name += std::string(" ") + model.products[i].name;
        }
        way.count = kLayers;
        way.enqueue = [&, mask](int layer) {
          for (int i = 0; i < 4; ++i) {
            best[mask >> i & 1][i].enqueue(layer);
            if (reads && i == 0) {
              ReadKernel<<<264, 1024, 0, context.stream>>>(cache, kRead / 16,
                                                           static_cast<uint32_t*>(works[0]->out()));
            }
          }
        };
        chains.push_back(way);
      }
      Measure(chains, 4, 150, context.stream);
      for (const Way& way : chains) {
        std::printf("chain %d rows%s, ours:%s: %.3f ms, %.0f MHz\n", rows,
                    reads ? ", with reads" : "", way.name.c_str(), way.us() * kLayers * 1e-3,
                    way.rate());
      }
      std::fflush(stdout);
    }
    for (const Work* work : works) delete work;
  }
  return 0;
}

int Main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const LaunchContext context = MakeContext();
  std::vector<int> rows;
  const bool of_model = what == "rows" || what == "stream";
  for (int i = of_model ? 3 : 2; i < argc; ++i) rows.push_back(std::atoi(argv[i]));
  if (what == "check") return CheckAll(context);
  if (what == "rows" && argc > 2) return RowsAll(argv[2], rows, context);
  if (what == "stream" && argc > 2) return StreamAll(argv[2], rows, context);
  if (what == "chain") return ChainAll(rows, context);
  std::printf(
      "wide_bench check | rows MODEL [ROWS ...] | stream MODEL [ROWS ...] | chain [ROWS ...]\n");
  return 2;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) { return sirocco::Main(argc, argv); }
