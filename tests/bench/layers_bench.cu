// The kernel of all layers (layers_kernel.h) against the chain of five kernels a layer, at the
// shapes of three models, bfloat16, one row and four of 277 tokens: whether they agree, and what a
// step takes with each, the LM head included, in one graph.
//
//   bazel build --config=opt --config=cuda //tests/bench:layers_bench
//   layers_bench [part of a model's name] [chunks under way]...
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
#include "kernels/cuda/stream.h"
#include "tests/bench/graph_time.cuh"
#include "tests/bench/layers_kernel.h"
#include "tests/bench/layers_plan.h"
#include "tests/bench/stream_check.cuh"
#include "tests/bench/stream_world.cuh"

namespace sirocco {
namespace {

using cuda::SIROCCO_CUDA_PATH::DecoderLayersExchange;
using cuda::SIROCCO_CUDA_PATH::DecoderLayersParams;
using cuda::SIROCCO_CUDA_PATH::DecodeRows;
using cuda::SIROCCO_CUDA_PATH::kLayersMarks;
using cuda::SIROCCO_CUDA_PATH::LaunchAddNorm;
using cuda::SIROCCO_CUDA_PATH::LaunchClusterAttention;
using cuda::SIROCCO_CUDA_PATH::LaunchDecoderLayers;
using cuda::SIROCCO_CUDA_PATH::LaunchReadStream;
using cuda::SIROCCO_CUDA_PATH::LaunchRmsNorm;
using cuda::SIROCCO_CUDA_PATH::LayersTuning;

constexpr Model kModels[] = {
    {"gemma3-1b", 26, 1152, 4, 1, 256, 6912, 262144, true},
    {"llama3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, false},
    {"llama3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, false},
};
constexpr int kBlockSize = 16;
constexpr int kMaxLength = 1024;

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
    const DecoderLayersParams p = Whole();
    const size_t bytes = DecoderLayersExchange(p, context.multiprocessors);
    if (bytes != 0) exchange_ = Allocate<char>(bytes);
    trace_ = Allocate<int64_t>(int64_t{context.multiprocessors} * kLayersMarks);
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
    p.trace = trace_;
    return p;
  }
  void RunWhole(const LaunchContext& context, const LayersTuning& tuning) const {
    MUST(LaunchDecoderLayers(Whole(), context, tuning));
  }

  void RunChain(const LaunchContext& context) const {
    for (int l = 0; l < m_.layers; ++l) {
      NormQkvParams qkv = world_.QkvOf(rows_, l);
      qkv.layer.table = table_;
      qkv.layer.kv_dtype = kDType;
      MUST(LaunchStream(qkv, context));
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
      MUST(LaunchStream(down, context));
    }
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
#ifdef LAYERS_TRACE
  std::vector<int64_t> Trace() const {
    std::vector<int64_t> trace(static_cast<size_t>(context_.multiprocessors) * kLayersMarks);
    MUST(cudaMemcpy(trace.data(), trace_, 8 * trace.size(), cudaMemcpyDeviceToHost));
    return trace;
  }
#endif

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
  char* exchange_ = nullptr;
  int64_t* trace_ = nullptr;
};

// Launches of a graph one after the other, as steps follow each other.
constexpr int kAtOnce = 8;

// Whether the kernel does what the chain does, and the same each time.
bool Check(const Step& step, int position, const LaunchContext& context) {
  step.Reset(position);
  step.RunChain(context);
  const Floats want = step.Normed();
  const Floats want_kv = step.Kv();
  Floats got, got_kv;
  bool same = true;
  for (int i = 0; i < 3; ++i) {
    step.Reset(position);
    step.RunWhole(context, {});
    const Floats normed = step.Normed();
    const Floats kv = step.Kv();
    if (i > 0) same = same && normed == got && kv == got_kv;
    got = normed;
    got_kv = kv;
  }
  const double error = ErrorOf(got, want);
  const double kv_error = ErrorOf(got_kv, want_kv);
  std::printf("  position %3d: off by %.1e of the largest, the cache by %.1e, %s\n", position,
              error, kv_error, same ? "the same again" : "NOT THE SAME AGAIN");
  // Activations are rounded to 2^-8 several times a layer.
  return same && error < 6e-2 && kv_error < 6e-2;
}

#ifdef LAYERS_TRACE
// Nanoseconds from the first block's mark 0 on of one layer, over blocks: the least, the median,
// the greatest; marks below 16 are a worker's, the others the adding warp's.
void PrintTrace(const Step& step, const LaunchContext& context) {
  const std::vector<int64_t> trace = step.Trace();
  int64_t begin = trace[0];
  for (int block = 0; block < context.multiprocessors; ++block) {
    begin = std::min(begin, trace[block * kLayersMarks]);
  }
  for (int mark = 0; mark < kLayersMarks; ++mark) {
    std::vector<int64_t> of;
    for (int block = 0; block < context.multiprocessors; ++block) {
      const int64_t at = trace[block * kLayersMarks + mark];
      if (at != 0) of.push_back(at - begin);
    }
    if (of.empty()) continue;
    std::sort(of.begin(), of.end());
    std::printf("    %2d: %6d %6d %6d (%d blocks)\n", mark, static_cast<int>(of.front()),
                static_cast<int>(of[of.size() / 2]), static_cast<int>(of.back()),
                static_cast<int>(of.size()));
  }
}
#endif

int Main(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "";
  std::vector<LayersTuning> tunings(1);
  for (int i = 2; i < argc; ++i) tunings.push_back({std::atoi(argv[i])});
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
      std::printf("%s, %d rows\n", model.name, rows);
      const Step step(model, rows, context);
      if (!step.has_kernel()) continue;
      for (const int position : {20, 275}) {
        if (!Check(step, position, context)) return 1;
      }
      step.Reset(276);
      const auto report = [&](const std::string& what, const std::function<void()>& work) {
        const double us = GraphMicroseconds(context.stream, work, kAtOnce);
        std::printf("  %-40s %8.1f us %5.1f%% %7.0f a second\n", what.c_str(), us,
                    100 * static_cast<double>(step.world().Bytes()) / us / rate, rows * 1e6 / us);
      };
      report("chain and head", [&] {
        step.RunChain(programmatic);
        step.RunHead(programmatic);
      });
      for (const LayersTuning& tuning : tunings) {
        report("one kernel and head, under way " + std::to_string(tuning.under_way), [&] {
          step.RunWhole(programmatic, tuning);
          step.RunHead(programmatic);
        });
#ifdef LAYERS_TRACE
        PrintTrace(step, context);
#endif
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) { return sirocco::Main(argc, argv); }
