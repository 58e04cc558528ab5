// The kernel of all layers (kernels/cuda/layers) against the chain of five kernels a layer, at the
// shapes of three models, bfloat16, of 277 tokens a row: whether they agree, and what a
// step takes with each, the LM head included, in one graph. Beside them the kernel of one layer, its
// graph launched once a layer, and a layer's chain that way: as mode layer_graph does it, but for the
// begin of a step and the sampling.
//
//   bazel build --config=opt --config=cuda //tests/bench:layers_bench
//   layers_bench [part of a model's name] [bytes under way[,blocks missing]]...
//
// What may be tuned is that of LayersTuning, one time each.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/layers/layers.h"
#include "kernels/cuda/stream.h"
#include "tests/bench/graph_time.cuh"
#include "tests/bench/stream_check.cuh"
#include "tests/bench/stream_world.cuh"

namespace sirocco {
namespace {

using cuda::LayersTuning;
using cuda::SIROCCO_CUDA_PATH::DecodeRows;
using cuda::SIROCCO_CUDA_PATH::LaunchAddNorm;
using cuda::SIROCCO_CUDA_PATH::LaunchClusterAttention;
using cuda::SIROCCO_CUDA_PATH::LaunchLayers;
using cuda::SIROCCO_CUDA_PATH::LaunchReadStream;
using cuda::SIROCCO_CUDA_PATH::LaunchRmsNorm;
using cuda::SIROCCO_CUDA_PATH::OfferLayers;

constexpr Model kModels[] = {
    {"gemma3-1b", 26, 1152, 4, 1, 256, 6912, 262144, true},
    {"llama3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, false},
    {"llama3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, false},
};
constexpr int kBlockSize = 16;
constexpr int kMaxLength = 2064;

class Step {
 public:
  Step(const Model& model, int rows, const LaunchContext& context)
      : world_(model), m_(model), rows_(rows), context_(context) {
    const int64_t of_layer = int64_t{2} * m_.kv_rows() * kBlockSize;
    const int of_lane = kMaxLength / kBlockSize;
    const int blocks = of_lane * rows_;
    kv_elements_ = of_layer * m_.layers * blocks;
    kv_ = Allocate<Element>(kv_elements_);
    rotary_ = Allocate<float>(int64_t{kMaxLength} * m_.head_dim);
    FillFloats(rotary_, int64_t{kMaxLength} * m_.head_dim, 0.7f);
    lane_ = Allocate<int32_t>(2 * rows_);
    block_table_ = Allocate<int32_t>(blocks);
    std::vector<int32_t> table;
    for (int i = 0; i < blocks; ++i) table.push_back((i * 7 + 3) % blocks);
    MUST(cudaMemcpy(block_table_, table.data(), blocks * 4, cudaMemcpyHostToDevice));
    layers_ = world_.table();
    for (int i = 0; i < m_.layers; ++i) {
      LayerParams& layer = layers_[i];
      layer.rotary = {rotary_, m_.head_dim};
      layer.attention = {m_.heads, i % 2 == 0 ? 0 : 512, 1 / std::sqrt(float(m_.head_dim)), 0};
      layer.kv = {kv_ + of_layer * i, kDType,     of_layer * m_.layers,
                  of_layer / 2,       kBlockSize, m_.kv_rows() / m_.head_dim,
                  m_.head_dim,        0};
    }
    table_ = Allocate<LayerParams>(layers_.size());
    MUST(cudaMemcpy(table_, layers_.data(), layers_.size() * sizeof(LayerParams),
                    cudaMemcpyHostToDevice));
    lanes_ = {};
    lanes_.block_table = block_table_;
    lanes_.max_lanes = rows_;
    lanes_.max_length = kMaxLength;
    lanes_.groups = 1;
    lanes_.max_blocks = of_lane;
    map_ = {lane_, lane_ + rows_};
    final_norm_ = layers_[0].attention_norm;
    counter_ = Allocate<int32_t>(1);
    delta_ = Allocate<float>(int64_t{rows_} * m_.hidden);
    DecoderLayersShape shape;
    shape.hidden = m_.hidden;
    shape.heads = m_.heads;
    shape.kv_heads = m_.kv_heads;
    shape.head_dim = m_.head_dim;
    shape.intermediate = m_.intermediate;
    shape.heads_turn_whole = shape.plain = true;
    shape.head_norms = shape.post_norms = m_.post_norms;
    shape.weights = shape.activations = shape.kv = kDType;
    const DecoderLayersOffer offer = OfferLayers(shape, context.multiprocessors);
    if (offer.rows >= rows_) exchange_ = Allocate<char>(offer.exchange_bytes);
  }

  void Reset(int position) const {
    world_.FillRows();
    FillElements(kv_, kv_elements_);
    std::vector<int32_t> at;
    for (int i = 0; i < rows_; ++i) at.push_back(i);
    for (int i = 0; i < rows_; ++i) at.push_back(position - 3 * i);
    MUST(cudaMemcpy(lane_, at.data(), 4 * at.size(), cudaMemcpyHostToDevice));
    MUST(cudaDeviceSynchronize());
  }

  DecoderLayersParams Whole() const {
    DecoderLayersParams p;
    p.rows = rows_;
    p.map = map_;
    p.lanes = lanes_;
    const NormQkvParams qkv = world_.QkvOf(rows_, 0);
    p.layer = qkv.layer;
    p.layer.table = table_;
    p.layer.kv_dtype = kDType;
    p.layers = m_.layers;
    p.hidden = qkv.hidden;
    p.final_norm = final_norm_;
    p.normed = qkv.normed;
    p.epsilon = layers_[0].norm_epsilon;
    p.exchange = exchange_;
    return p;
  }
  void RunWhole(const LaunchContext& context, const LayersTuning& tuning) const {
    MUST(LaunchLayers(Whole(), context, tuning));
  }

  // The layer that the counter says, as one kernel.
  void RunOne(const LaunchContext& context, const LayersTuning& tuning) const {
    DecoderLayersParams p = Whole();
    p.layer.counter = p.advance = counter_;
    p.delta = world_.DownOf(rows_, 0).hidden;
    p.delta.data = delta_;
    LaunchContext alone = context;
    alone.programmatic = false;
    MUST(LaunchLayers(p, alone, tuning));
  }
  void RunBegin(const LaunchContext& context) const {
    MUST(cudaMemsetAsync(counter_, 0, sizeof(int32_t), context.stream));
  }
  void RunOneEnd(const LaunchContext& context) const {
    const NormQkvParams of = world_.QkvOf(rows_, 0);
    AddNormParams p;
    p.rows = rows_;
    p.sum = of.hidden;
    p.delta = of.hidden;
    p.delta.data = delta_;
    p.post_norm = layers_.back().mlp_post_norm;
    p.weight = final_norm_;
    p.epsilon = layers_[0].norm_epsilon;
    p.normed = of.normed;
    MUST(LaunchAddNorm(p, context));
  }

  void RunChain(const LaunchContext& context) const {
    for (int l = 0; l < m_.layers; ++l) RunLayer(context, l, nullptr);
    RunChainEnd(context);
  }
  // With a counter: of the layer that it says.
  void RunLayer(const LaunchContext& context, int l, int32_t* counter) const {
    {
      LaunchContext begins = context;
      begins.programmatic = context.programmatic && counter == nullptr;
      NormQkvParams qkv = world_.QkvOf(rows_, l);
      qkv.layer.table = table_;
      qkv.layer.counter = counter;
      qkv.layer.kv_dtype = kDType;
      MUST(LaunchStream(qkv, begins));
      DecodeRows rows;
      rows.rows = rows_;
      rows.map = map_;
      rows.lanes = lanes_;
      rows.layer = qkv.layer;
      rows.qkv = qkv.qkv;
      OutputResidualParams output = world_.OutputOf(rows_, l);
      output.layer = qkv.layer;
      rows.out = output.attention;
      MUST(LaunchClusterAttention(rows, context));
      MUST(LaunchStream(output, context));
      NormGateUpParams gate_up = world_.GateUpOf(rows_, l);
      gate_up.layer = qkv.layer;
      MUST(LaunchStream(gate_up, context));
      DownResidualParams down = world_.DownOf(rows_, l);
      down.layer = qkv.layer;
      down.advance = counter;
      MUST(LaunchStream(down, context));
    }
  }
  void RunChainEnd(const LaunchContext& context) const {
    const NormQkvParams of = world_.QkvOf(rows_, 0);
    if (m_.post_norms) {
      AddNormParams p;
      p.rows = rows_;
      p.sum = of.hidden;
      p.delta = of.delta;
      p.post_norm = layers_.back().mlp_post_norm;
      p.weight = final_norm_;
      p.epsilon = layers_[0].norm_epsilon;
      p.normed = of.normed;
      MUST(LaunchAddNorm(p, context));
    } else {
      RmsNormParams p;
      p.rows = rows_;
      p.in = of.hidden;
      p.weight = final_norm_;
      p.epsilon = layers_[0].norm_epsilon;
      p.out = of.normed;
      MUST(LaunchRmsNorm(p, context));
    }
  }
  void RunHead(const LaunchContext& context) const { world_.Head(rows_, 0, context, {}); }

  Floats Normed() const { return Download(world_.QkvOf(rows_, 0).normed, rows_); }
  Floats Kv() const { return Download(kv_, kDType, kv_elements_); }
  const World& world() const { return world_; }
  bool has_kernel() const { return exchange_ != nullptr; }
  int layers() const { return m_.layers; }
  int32_t* counter() const { return counter_; }

 private:
  World world_;
  Model m_;
  int rows_;
  LaunchContext context_;
  int64_t kv_elements_;
  Element* kv_;
  float* rotary_;
  int32_t* lane_;
  int32_t* block_table_;
  std::vector<LayerParams> layers_;
  LayerParams* table_;
  Lanes lanes_;
  RowMap map_;
  const float* final_norm_;
  int32_t* counter_;
  float* delta_;  // of the kernel of one layer
  char* exchange_ = nullptr;
};

// Work as a graph that may be launched again and again.
class Graph {
 public:
  Graph(cudaStream_t stream, const std::function<void()>& work) : stream_(stream) {
    cudaGraph_t graph;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiate(&exec_, graph, 0));
    MUST(cudaGraphUpload(exec_, stream));
    MUST(cudaGraphDestroy(graph));
  }
  ~Graph() { cudaGraphExecDestroy(exec_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void Launch() const { MUST(cudaGraphLaunch(exec_, stream_)); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t exec_;
};

// Microseconds of a step of three graphs, the second launched once a layer: the median of 15 times
// eight steps one after the other.
double LayerGraphMicroseconds(const Step& step, cudaStream_t stream, const Graph& begin,
                              const Graph& layer, const Graph& end) {
  constexpr int kSteps = 8;
  cudaEvent_t from, to;
  MUST(cudaEventCreate(&from));
  MUST(cudaEventCreate(&to));
  std::vector<float> times;
  for (int i = 0; i < 18; ++i) {
    MUST(cudaEventRecord(from, stream));
    for (int k = 0; k < kSteps; ++k) {
      begin.Launch();
      for (int l = 0; l < step.layers(); ++l) layer.Launch();
      end.Launch();
    }
    MUST(cudaEventRecord(to, stream));
    MUST(cudaEventSynchronize(to));
    float ms = 0;
    MUST(cudaEventElapsedTime(&ms, from, to));
    if (i >= 3) times.push_back(ms / kSteps);
  }
  MUST(cudaEventDestroy(from));
  MUST(cudaEventDestroy(to));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2] * 1e3;
}

// Launches of a graph one after the other, as steps follow each other.
constexpr int kAtOnce = 8;

// Whether the kernel does what the chain does, and the same each time.
bool Check(const Step& step, int position, const LaunchContext& context,
           const LayersTuning& tuning) {
  step.Reset(position);
  step.RunChain(context);
  const Floats want = step.Normed();
  const Floats want_kv = step.Kv();
  Floats got, got_kv;
  bool same = true;
  for (int i = 0; i < 2; ++i) {
    step.Reset(position);
    step.RunWhole(context, tuning);
    const Floats normed = step.Normed();
    const Floats kv = step.Kv();
    if (i > 0) same = same && normed == got && kv == got_kv;
    got = normed;
    got_kv = kv;
  }
  const auto report = [&](const char* what, const Floats& of, const Floats& of_kv) {
    const double error = ErrorOf(of, want);
    const double kv_error = ErrorOf(of_kv, want_kv);
    std::printf("  position %3d, %s: off by %.1e of the largest, the cache by %.1e, %s\n", position,
                what, error, kv_error, same ? "the same again" : "NOT THE SAME AGAIN");
    // Activations are rounded to 2^-8 several times a layer.
    return same && error < 6e-2 && kv_error < 6e-2;
  };
  const bool whole_ok = report("all layers", got, got_kv);
  const Floats whole_kv = got_kv;
  for (int i = 0; i < 2; ++i) {
    step.Reset(position);
    step.RunBegin(context);
    for (int l = 0; l < step.layers(); ++l) step.RunOne(context, tuning);
    step.RunOneEnd(context);
    const Floats normed = step.Normed();
    const Floats kv = step.Kv();
    if (i > 0) same = same && normed == got && kv == got_kv;
    got = normed;
    got_kv = kv;
  }
  const bool one_ok = report("a launch each", got, got_kv);
  std::printf("  position %3d: the caches of both are %s\n", position,
              got_kv == whole_kv ? "the same bits" : "not the same bits");
  return whole_ok && one_ok;
}

LayersTuning TuningOf(const char* text) {
  LayersTuning tuning;
  char* rest;
  tuning.under_way = static_cast<int32_t>(std::strtol(text, &rest, 10));
  if (*rest == ',') tuning.missing = static_cast<int32_t>(std::strtol(rest + 1, nullptr, 10));
  return tuning;
}

// Two streams' kernels at once, each of which wants every multiprocessor: whether both end.
bool CheckTwo(const Model& model, const LaunchContext& context) {
  const Step one(model, 1, context);
  const Step two(model, 1, context);
  one.Reset(20);
  two.Reset(20);
  LaunchContext other = context;
  MUST(cudaStreamCreateWithFlags(&other.stream, cudaStreamNonBlocking));
  for (int i = 0; i < 200; ++i) {
    one.RunWhole(context, {});
    two.RunWhole(other, {});
  }
  MUST(cudaDeviceSynchronize());
  MUST(cudaStreamDestroy(other.stream));
  const bool same = one.Normed() == two.Normed();
  std::printf("  200 times in two streams: %s\n", same ? "both end, alike" : "NOT THE SAME");
  return same;
}

int Main(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "";
  std::vector<LayersTuning> tunings(1);
  for (int i = 2; i < argc; ++i) tunings.push_back(TuningOf(argv[i]));
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  LaunchContext context;
  MUST(cudaStreamCreate(&context.stream));
  context.multiprocessors = properties.multiProcessorCount;
  context.scratch = Allocate<float>(8 * 65536);
  context.counters = Allocate<uint32_t>(cuda::kCounters);
  LaunchContext programmatic = context;
  programmatic.programmatic = true;
  constexpr size_t kRead = size_t{2} << 30;
  char* const data = Allocate<char>(kRead);
  const double rate = kRead / GraphMicroseconds(
                                  context.stream,
                                  [&] {  // bytes a microsecond
                                    MUST(LaunchReadStream(data, kRead, context.counters, context));
                                  },
                                  kAtOnce);
  MUST(cudaFree(data));
  std::printf("%s, read stream %.0f GB/s\n", properties.name, rate / 1e3);
  for (const Model& model : kModels) {
    if (std::string(model.name).find(wanted) == std::string::npos) continue;
    for (const int rows : {1, 4}) {
      const Step step(model, rows, context);
      if (!step.has_kernel()) continue;
      std::printf("%s, %d rows\n", model.name, rows);
      for (const int position : {20, 275, 2040}) {
        if (!Check(step, position, context, tunings[0])) return 1;
      }
      if (rows == 1 && !CheckTwo(model, programmatic)) return 1;
      for (const int position : {150, 276, 2040}) {
        step.Reset(position);
        const auto report = [&](const std::string& what, const std::function<void()>& work) {
          const double us = GraphMicroseconds(context.stream, work, kAtOnce);
          std::printf("  %4d tokens, %-34s %8.1f us %5.1f%% %7.0f a second\n", position + 1,
                      what.c_str(), us, 100 * static_cast<double>(step.world().Bytes()) / us / rate,
                      rows * 1e6 / us);
        };
        report("chain and head", [&] {
          step.RunChain(programmatic);
          step.RunHead(programmatic);
        });
        const auto by_layer = [&](const std::string& what, const std::function<void()>& layer,
                                  const std::function<void()>& end) {
          const Graph begin_graph(context.stream, [&] { step.RunBegin(context); });
          const Graph layer_graph(context.stream, layer);
          const Graph end_graph(context.stream, [&] {
            end();
            step.RunHead(programmatic);
          });
          const double us = LayerGraphMicroseconds(step, context.stream, begin_graph, layer_graph,
                                                   end_graph);
          std::printf("  %4d tokens, %-34s %8.1f us %5.1f%% %7.0f a second\n", position + 1,
                      what.c_str(), us, 100 * static_cast<double>(step.world().Bytes()) / us / rate,
                      rows * 1e6 / us);
        };
        by_layer(
            "a graph a layer, chain",
            [&] { step.RunLayer(programmatic, 0, step.counter()); },
            [&] { step.RunChainEnd(programmatic); });
        if (rows == 1) {
          for (size_t i = 0; i < tunings.size(); ++i) {
            by_layer(
                "a graph a layer, one kernel, " + (i == 0 ? "as it is" : std::string(argv[i + 1])),
                [&] { step.RunOne(programmatic, tunings[i]); },
                [&] { step.RunOneEnd(programmatic); });
          }
        }
        for (size_t i = 0; i < tunings.size(); ++i) {
          report("one kernel and head, " + (i == 0 ? "as it is" : std::string(argv[i + 1])), [&] {
            step.RunWhole(programmatic, tunings[i]);
            step.RunHead(programmatic);
          });
        }
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) {
  // A kernel that waits for ever is seen from the line before it, in a file too.
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  return sirocco::Main(argc, argv);
}
