// The kernel of all layers in panels' order (kernels/cuda/layers/ordered_layers.cu) against the
// chain of kernels of batch_invariant, and beside the default's kernel of all layers, at the shape
// of gemma3-1b, bfloat16, one row: whether the chain's and its bits are the same, and what a step
// takes with each, the LM head included, in one graph.
//
//   bazel build --config=opt --config=cuda //tests/bench:ordered_layers_bench
//   ordered_layers_bench [blocks missing]...
//
// Blocks missing: LayersTuning's, one time each.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/layers/layers.h"
#include "kernels/cuda/ordered.h"
#include "kernels/cuda/panel_product.h"
#include "tests/bench/graph_time.cuh"
#include "tests/bench/stream_check.cuh"
#include "tests/bench/stream_world.cuh"

namespace sirocco {
namespace {

namespace path = cuda::SIROCCO_CUDA_PATH;
using cuda::LayersTuning;
using cuda::PanelMaps;
using cuda::PanelProductParams;

constexpr Model kModel = {"gemma3-1b", 26, 1152, 4, 1, 256, 6912, 262144, true};
constexpr int kBlockSize = 16;
constexpr int kMaxLength = 2064;

// Of any size and sign: what sums round hangs on the order.
__global__ void FillSpreadKernel(const __grid_constant__ FillParams p) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.count;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t hash = (static_cast<uint32_t>(i) + 77u) * 2654435761u;
    hash = (hash ^ hash >> 15) * 2246822519u;
    hash ^= hash >> 13;
    const float x = (static_cast<float>(hash & 0xffffu) / 32768.0f - 1) *
                    exp2f(static_cast<float>(hash >> 16 & 3));
    static_cast<float*>(p.to)[i] = p.value * x;
  }
}

class Step {
 public:
  explicit Step(const LaunchContext& context) : world_(kModel), m_(kModel) {
    const int64_t of_layer = int64_t{2} * m_.kv_rows() * kBlockSize;
    const int blocks = kMaxLength / kBlockSize;
    kv_elements_ = of_layer * m_.layers * blocks;
    kv_ = Allocate<Element>(kv_elements_);
    rotary_ = Allocate<float>(int64_t{kMaxLength} * m_.head_dim);
    FillFloats(rotary_, int64_t{kMaxLength} * m_.head_dim, 0.7f);
    lane_ = Allocate<int32_t>(2);
    block_table_ = Allocate<int32_t>(blocks);
    std::vector<int32_t> table;
    for (int i = 0; i < blocks; ++i) table.push_back((i * 7 + 3) % blocks);
    MUST(cudaMemcpy(block_table_, table.data(), blocks * 4, cudaMemcpyHostToDevice));
    layers_ = world_.table();
    for (int i = 0; i < m_.layers; ++i) {
      LayerParams& layer = layers_[i];
      layer.rotary = {rotary_, m_.head_dim};
      layer.attention = {m_.heads, i % 6 == 5 ? 0 : 512, 1 / std::sqrt(float(m_.head_dim)), 0};
      layer.kv = {kv_ + of_layer * i, kDType,     of_layer * m_.layers,
                  of_layer / 2,       kBlockSize, m_.kv_rows() / m_.head_dim,
                  m_.head_dim,        0};
    }
    table_ = Allocate<LayerParams>(layers_.size());
    MUST(cudaMemcpy(table_, layers_.data(), layers_.size() * sizeof(LayerParams),
                    cudaMemcpyHostToDevice));
    lanes_.block_table = block_table_;
    lanes_.max_lanes = 1;
    lanes_.max_length = kMaxLength;
    lanes_.groups = 1;
    lanes_.max_blocks = blocks;
    map_ = {lane_, lane_ + 1};
    DecoderLayersShape shape;
    shape.hidden = m_.hidden;
    shape.heads = m_.heads;
    shape.kv_heads = m_.kv_heads;
    shape.head_dim = m_.head_dim;
    shape.intermediate = m_.intermediate;
    shape.heads_turn_whole = shape.plain = shape.head_norms = shape.post_norms =
        true;
    shape.weights = shape.activations = shape.kv = kDType;
    const auto exchange = [&](const DecoderLayersOffer& offer) {
      if (offer.rows == 0) {
        std::printf("not offered on this device\n");
        std::exit(1);
      }
      return Allocate<char>(offer.exchange_bytes);
    };
    default_ = exchange(path::OfferLayers(shape, context.multiprocessors));
    ordered_ = exchange(path::OfferOrderedLayers(shape, context.multiprocessors));
  }

  void Reset(int position) const {
    world_.FillRows();
    MUST(LaunchKernel(FillSpreadKernel, dim3(64), dim3(256), 0, LaunchContext(),
                      FillParams{world_.QkvOf(1, 0).hidden.data, m_.hidden, 3}));
    FillElements(kv_, kv_elements_);
    const int32_t at[] = {0, position};
    MUST(cudaMemcpy(lane_, at, sizeof(at), cudaMemcpyHostToDevice));
    MUST(cudaDeviceSynchronize());
  }

  DecoderLayersParams Whole(int layers, char* exchange) const {
    const NormQkvParams qkv = world_.QkvOf(1, 0);
    DecoderLayersParams p;
    p.rows = 1;
    p.map = map_;
    p.lanes = lanes_;
    p.layer = Ref(0);
    p.layers = layers;
    p.hidden = qkv.hidden;
    p.final_norm = layers_[0].attention_norm;
    p.normed = qkv.normed;
    p.epsilon = layers_[0].norm_epsilon;
    p.exchange = exchange;
    return p;
  }
  void RunDefault(const LaunchContext& context) const {
    MUST(path::LaunchLayers(Whole(m_.layers, default_), context));
  }
  void RunOrdered(const LaunchContext& context, int layers, const LayersTuning& tuning) const {
    MUST(path::LaunchOrderedLayers(Whole(layers, ordered_), context, tuning));
  }

  // As CudaOps does it where steps are batch-invariant.
  void RunChain(const LaunchContext& context, int layers) {
    for (int l = 0; l < layers; ++l) {
      NormQkvParams qkv = world_.QkvOf(1, l);
      qkv.layer = Ref(l);
      if (l == 0) qkv.delta = qkv.sum = {};
      MUST(path::LaunchNorms(qkv, context));
      PanelProductParams panels;
      panels.rows = 1;
      panels.in = qkv.normed;
      panels.weight = layers_[l].q;
      panels.weight.rows = m_.qkv_rows();
      panels.out = qkv.qkv;
      Panels(panels, context);
      path::DecodeRows rows;
      rows.rows = 1;
      rows.map = map_;
      rows.lanes = lanes_;
      rows.layer = Ref(l);
      rows.qkv = qkv.qkv;
      OutputResidualParams output = world_.OutputOf(1, l);
      rows.q = output.attention;  // for its type
      rows.out = output.attention;
      MUST(path::LaunchOrderedAttention(rows, context));
      // What layer 0 reads it leaves where it is.
      Panels(ToDelta(output.attention, layers_[l].o), context);
      NormGateUpParams gate_up = world_.GateUpOf(1, l);
      gate_up.layer = Ref(l);
      if (l == 0) gate_up.hidden = gate_up.sum;
      MUST(path::LaunchNorms(gate_up, context));
      panels = {};
      panels.rows = 1;
      panels.in = gate_up.normed;
      panels.weight = layers_[l].gate;
      panels.up = layers_[l].up;
      panels.activation = layers_[l].activation;
      panels.out = gate_up.out;
      Panels(panels, context);
      Panels(ToDelta(gate_up.out, layers_[l].down), context);
    }
    const NormQkvParams of = world_.QkvOf(1, 0);
    AddNormParams p;
    p.rows = 1;
    p.sum = of.hidden;
    p.delta = of.delta;
    p.post_norm = layers_.back().mlp_post_norm;
    p.weight = layers_[0].attention_norm;
    p.epsilon = layers_[0].norm_epsilon;
    p.normed = of.normed;
    MUST(path::LaunchAddNorm(p, context));
  }
  void RunHead(const LaunchContext& context) {
    const MatMulParams head = world_.HeadOf(1);
    PanelProductParams panels;
    panels.rows = 1;
    panels.in = head.in;
    panels.weight = head.weight;
    panels.out = head.out;
    Panels(panels, context);
  }

  Floats Normed() const { return Download(world_.QkvOf(1, 0).normed, 1); }
  Floats Kv() const { return Download(kv_, kDType, kv_elements_); }
  int layers() const { return m_.layers; }

 private:
  LayerRef Ref(int layer) const {
    LayerRef ref = world_.QkvOf(1, layer).layer;
    ref.table = table_;
    ref.kv_dtype = kDType;
    return ref;
  }
  PanelProductParams ToDelta(const Rows& in, const Matrix& weight) const {
    PanelProductParams panels;
    panels.rows = 1;
    panels.in = in;
    panels.weight = weight;
    panels.out = world_.QkvOf(1, 0).delta;
    return panels;
  }
  void Panels(const PanelProductParams& p, const LaunchContext& context) {
    MUST(path::LaunchPanelProduct(p, maps_, context));
  }

  World world_;
  Model m_;
  PanelMaps maps_;
  int64_t kv_elements_;
  Element* kv_;
  float* rotary_;
  int32_t* lane_;
  int32_t* block_table_;
  std::vector<LayerParams> layers_;
  LayerParams* table_;
  Lanes lanes_ = {};
  RowMap map_;
  char *default_ = nullptr, *ordered_ = nullptr;
};

// Elements that are not the same bits.
int64_t Differing(const Floats& a, const Floats& b) {
  int64_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += std::memcmp(&a[i], &b[i], sizeof(float)) != 0;
  return count;
}

// Whether the kernel has the chain's bits.
bool Check(Step& step, int layers, int position, const LaunchContext& context,
           const LayersTuning& tuning) {
  step.Reset(position);
  step.RunChain(context, layers);
  const Floats want = step.Normed();
  const Floats want_kv = step.Kv();
  step.Reset(position);
  step.RunOrdered(context, layers, tuning);
  const Floats got = step.Normed();
  const Floats got_kv = step.Kv();
  const int64_t differing = Differing(got, want);
  const int64_t differing_kv = Differing(got_kv, want_kv);
  std::printf(
      "  %2d layers, position %4d: %lld of %zu elements differ (by %.1e of the largest), in the "
      "cache %lld\n",
      layers, position, static_cast<long long>(differing), want.size(), ErrorOf(got, want),
      static_cast<long long>(differing_kv));
  return differing == 0 && differing_kv == 0;
}

int Main(int argc, char** argv) {
  std::vector<LayersTuning> tunings(1);
  for (int i = 1; i < argc; ++i) {
    tunings.emplace_back();
    tunings.back().missing = std::atoi(argv[i]);
  }
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  LaunchContext context;
  MUST(cudaStreamCreate(&context.stream));
  context.multiprocessors = properties.multiProcessorCount;
  context.scratch = Allocate<float>(64 * 65536);
  context.counters = Allocate<uint32_t>(cuda::kCounters);
  LaunchContext programmatic = context;
  programmatic.programmatic = true;
  std::printf("%s\n", properties.name);
  Step step(context);
  bool same = true;
  for (const int layers : {1, 2, step.layers()}) {
    for (const int position : {0, 20, 63, 64, 255, 256, 275, 600, 1500, 2040, 2047}) {
      same = Check(step, layers, position, context, tunings[0]) && same;
    }
  }
  std::printf("%s\n", same ? "ALL THE SAME BITS" : "NOT THE SAME BITS");
  for (const int position : {150, 276, 2040}) {
    step.Reset(position);
    const auto report = [&](const std::string& what, const std::function<void()>& work) {
      std::printf("  %4d tokens, %-34s %8.1f us\n", position + 1, what.c_str(),
                  GraphMicroseconds(context.stream, work, 8));
    };
    report("the chain and head", [&] {
      step.RunChain(programmatic, step.layers());
      step.RunHead(programmatic);
    });
    report("the default's kernel and head", [&] {
      step.RunDefault(programmatic);
      step.RunHead(programmatic);
    });
    for (size_t i = 0; i < tunings.size(); ++i) {
      report("in order and head, " + (i == 0 ? std::string("as it is") : std::string(argv[i])),
             [&] {
               step.RunOrdered(programmatic, step.layers(), tunings[i]);
               step.RunHead(programmatic);
             });
    }
  }
  return same ? 0 : 1;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) {
  // A kernel that waits for ever is seen from the line before it, in a file too.
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  return sirocco::Main(argc, argv);
}
