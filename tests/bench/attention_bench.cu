// Attention of a decode step alone (cluster_attention.cu, pair_attention.cu): whether it is right, and how much of the
// memory's bandwidth its reads of keys and values get, at the shapes of three models.
//
//   bazel build --config=opt --config=cuda //tests/bench:attention_bench
//   attention_bench [part of a model's name]
//
// A layer's keys and values are read cold: each launch is of another layer, over more than the L2
// cache, one after the other in one graph, each beginning while the one before ends. Blocks of 16
// slots stand in any order. Shares are of a plain read stream of 2 GiB, measured first.
//
// Each step is timed twice: of ended queries, where a launch loads nothing before the one before has
// ended, and of bare products of q, k and v, as compiled decoding has it, where it asks for keys and
// values before that.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/kv_scale.h"
#include "tests/bench/graph_time.cuh"
#include "tests/bench/stream_world.cuh"

namespace sirocco {
namespace {

using cuda::SIROCCO_CUDA_PATH::DecodeRows;

// Kernels to be compared; others may be compiled in.
struct Variant {
  const char* name;
  cudaError_t (*launch)(const DecodeRows&, const LaunchContext&);
};
#ifndef ATTENTION_VARIANTS
#define ATTENTION_VARIANTS {"", cuda::SIROCCO_CUDA_PATH::LaunchClusterAttention}
#endif
constexpr Variant kVariants[] = {ATTENTION_VARIANTS};

constexpr int kBlockSize = 16;

struct Shape {
  const char* name;
  int heads, kv_heads, head_dim;
};
constexpr Shape kShapes[] = {
    {"gemma3-1b", 4, 1, 256}, {"llama3.2-1b", 32, 8, 64}, {"llama3.1-8b", 32, 8, 128}};

struct FillKvParams {
  void* to;
  int64_t bytes;
  int64_t element_bytes;
  int64_t layer_bytes, scales_from;  // in float8: bytes of a block's layer, where its scales begin
};
// Elements of -1 ... 1, by a hash of their place; in float8 scales of 2^-8 ... 2^-5.
__global__ void FillKvKernel(const __grid_constant__ FillKvParams p) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.bytes / 2;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t hash = static_cast<uint32_t>(i) * 2654435761u + static_cast<uint32_t>(i >> 32);
    hash = (hash ^ hash >> 15) * 2246822519u;
    hash = (hash ^ hash >> 13) * 3266489917u;
    hash ^= hash >> 16;
    if (p.element_bytes == 2) {
      const float x = static_cast<float>(hash & 0xffff) * 0x1p-15f - 1.0f;
      static_cast<__nv_bfloat16*>(p.to)[i] = __float2bfloat16_rn(x);
    } else if (2 * i % p.layer_bytes >= p.scales_from) {
      static_cast<uint16_t*>(p.to)[i] = static_cast<uint16_t>(0x7777u + (hash & 0x0303u));
    } else {
      static_cast<uint16_t*>(p.to)[i] = static_cast<uint16_t>(hash & 0xf7f7u);
    }
  }
}

// The step: rows of some lengths, their cache, queries, and what comes out.
class World {
 public:
  // `lengths`: slots of each row.
  World(const Shape& shape, DType dtype, const std::vector<int>& lengths, int max_length)
      : shape_(shape), dtype_(dtype), lengths_(lengths), max_length_(max_length) {
    const int max_blocks = (max_length + kBlockSize - 1) / kBlockSize;
    int64_t blocks = 0;
    for (const int length : lengths) blocks += (length + kBlockSize - 1) / kBlockSize;
    layer_elements_ = KvLayerElements(dtype, shape.kv_heads, kBlockSize, shape.head_dim);
    const int64_t element_bytes = static_cast<int64_t>(BytesOf(dtype));
    const int64_t layer_bytes = blocks * layer_elements_ * element_bytes;
    layers_ = static_cast<int>(std::clamp<int64_t>((int64_t{512} << 20) / layer_bytes, 16, 64));
    data_bytes_ = layers_ * layer_bytes;
    data_ = Allocate<char>(data_bytes_);
    const int64_t vectors = int64_t{2} * shape.kv_heads * kBlockSize * shape.head_dim;
    MUST(LaunchKernel(FillKvKernel, dim3(2048), dim3(256), 0, LaunchContext(),
                      FillKvParams{data_, data_bytes_, element_bytes, layer_elements_ * element_bytes,
                                   vectors * element_bytes}));
    std::vector<int32_t> order(blocks), table(lengths.size() * max_blocks, 0);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 random(7);
    std::shuffle(order.begin(), order.end(), random);
    int64_t next = 0;
    std::vector<int32_t> lane, position;
    for (size_t row = 0; row < lengths.size(); ++row) {
      for (int b = 0; b < (lengths[row] + kBlockSize - 1) / kBlockSize; ++b) {
        table[row * max_blocks + b] = order[next++];
      }
      lane.push_back(static_cast<int32_t>(row));
      position.push_back(lengths[row] - 1);
    }
    table_ = table;
    device_table_ = Upload(table);
    lane_ = Upload(lane);
    position_ = Upload(position);
    q_.resize(lengths.size() * Width());
    std::vector<__nv_bfloat16> q(q_.size());
    for (size_t i = 0; i < q.size(); ++i) {
      q[i] = __float2bfloat16_rn(std::normal_distribution<float>()(random));
      q_[i] = __bfloat162float(q[i]);
    }
    device_q_ = Upload(q);
    out_ = Allocate<__nv_bfloat16>(q.size());
    MakeProducts(random);
    MUST(cudaDeviceSynchronize());
  }
  ~World() {
    for (void* data : {static_cast<void*>(data_), static_cast<void*>(device_table_),
                       static_cast<void*>(lane_), static_cast<void*>(position_),
                       static_cast<void*>(device_q_), static_cast<void*>(out_),
                       static_cast<void*>(products_), static_cast<void*>(turn_),
                       static_cast<void*>(table_of_layers_)}) {
      MUST(cudaFree(data));
    }
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int layers() const { return layers_; }
  // Of a layer's keys and values that are read.
  double Bytes() const {
    double slots = 0;
    for (const int length : lengths_) slots += length;
    return slots * shape_.kv_heads * 2 *
           (shape_.head_dim * static_cast<double>(BytesOf(dtype_)) +
            (dtype_ == DType::kFloat8 ? 1 : 0));
  }

  // `products`: q, k and v are still to be ended.
  void Launch(const Variant& variant, int layer, bool products,
              const LaunchContext& context) const {
    DecodeRows p;
    p.rows = static_cast<int32_t>(lengths_.size());
    p.map = {lane_, position_};
    p.lanes.block_table = device_table_;
    p.lanes.max_lanes = p.rows;
    p.lanes.max_length = max_length_;
    p.lanes.groups = 1;
    p.lanes.max_blocks = (max_length_ + kBlockSize - 1) / kBlockSize;
    if (products) {
      p.layer.table = table_of_layers_;
      p.layer.index = layer;
      p.layer.host = &host_layers_[layer];
      p.layer.q_rows = Width();
      p.layer.kv_rows = KvWidth();
      p.layer.head_dim = shape_.head_dim;
      p.layer.kv_dtype = dtype_;
      p.qkv = {products_, DType::kFloat32, Width() + 2 * KvWidth()};
    } else {
      p.q = {device_q_, DType::kBFloat16, Width()};
      p.shape = AttentionOf();
      p.kv = KvOf(layer);
    }
    p.out = {out_, DType::kBFloat16, Width()};
    MUST(variant.launch(p, context));
  }

  // The largest difference from double precision, of the largest value, over some heads; -1: two
  // runs differed.
  double Check(const Variant& variant, bool products, const LaunchContext& context) const {
    const auto run = [&] {
      std::vector<__nv_bfloat16> out(q_.size());
      MUST(cudaMemset(out_, 0xff, out.size() * 2));
      Launch(variant, layers_ - 1, products, context);
      MUST(cudaDeviceSynchronize());
      MUST(cudaMemcpy(out.data(), out_, out.size() * 2, cudaMemcpyDeviceToHost));
      return out;
    };
    const std::vector<__nv_bfloat16> out = run(), again = run();
    if (std::memcmp(out.data(), again.data(), out.size() * 2) != 0) return -1;
    double worst = 0;
    const int group = shape_.heads / shape_.kv_heads;
    for (const size_t row : {size_t{0}, lengths_.size() - 1}) {
      const std::vector<std::vector<float>> k = Vectors(row, shape_.kv_heads - 1, false);
      const std::vector<std::vector<float>> v = Vectors(row, shape_.kv_heads - 1, true);
      for (int head = shape_.heads - group; head < shape_.heads; ++head) {
        const int64_t at = static_cast<int64_t>(row) * Width() + head * shape_.head_dim;
        std::vector<double> want(shape_.head_dim);
        double sum = 0;
        for (size_t slot = 0; slot < k.size(); ++slot) {
          double product = 0;
          for (int d = 0; d < shape_.head_dim; ++d) product += double{q_[at + d]} * k[slot][d];
          const double weight = std::exp(product * Scale());
          sum += weight;
          for (int d = 0; d < shape_.head_dim; ++d) want[d] += weight * v[slot][d];
        }
        double largest = 0, off = 0;
        for (int d = 0; d < shape_.head_dim; ++d) {
          const double got = __bfloat162float(out[at + d]);
          largest = std::max(largest, std::abs(want[d] / sum));
          const double difference = std::abs(got - want[d] / sum);
          off = difference <= off ? off : difference;  // NaN stays
        }
        const double relative = off / largest;
        if (!(relative <= worst)) worst = relative;
      }
    }
    return worst;
  }

 private:
  template <typename T>
  static T* Upload(const std::vector<T>& from) {
    T* const to = Allocate<T>(from.size());
    MUST(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    return to;
  }
  int32_t Width() const { return shape_.heads * shape_.head_dim; }
  int32_t KvWidth() const { return shape_.kv_heads * shape_.head_dim; }
  AttentionShape AttentionOf() const {
    AttentionShape shape;
    shape.heads = shape_.heads;
    shape.scale = Scale();
    return shape;
  }
  KvLayer KvOf(int layer) const {
    KvLayer kv;
    kv.data = data_ + LayerBytes() * layer;
    kv.dtype = dtype_;
    kv.block_stride = layer_elements_ * layers_;
    kv.value_offset = int64_t{shape_.kv_heads} * kBlockSize * shape_.head_dim;
    kv.block_size = kBlockSize;
    kv.kv_heads = shape_.kv_heads;
    kv.head_dim = shape_.head_dim;
    return kv;
  }

  // Products that end as the queries, after turns by nothing, and as any k and v.
  void MakeProducts(std::mt19937& random) {
    std::vector<float> products;
    for (size_t row = 0; row < lengths_.size(); ++row) {
      products.insert(products.end(), q_.begin() + row * Width(), q_.begin() + (row + 1) * Width());
      for (int i = 0; i < 2 * KvWidth(); ++i) {
        products.push_back(std::uniform_real_distribution<float>(-1, 1)(random));
      }
    }
    products_ = Upload(products);
    std::vector<float> turn;  // [max_length][cosines, sines]
    for (int position = 0; position < max_length_; ++position) {
      turn.insert(turn.end(), shape_.head_dim / 2, 1.0f);
      turn.insert(turn.end(), shape_.head_dim / 2, 0.0f);
    }
    turn_ = Upload(turn);
    host_layers_.resize(layers_);
    for (int i = 0; i < layers_; ++i) {
      LayerParams& layer = host_layers_[i];
      layer.attention = AttentionOf();
      layer.kv = KvOf(i);
      layer.rotary.dim = shape_.head_dim;
      layer.rotary.cos_sin = turn_;
    }
    table_of_layers_ = Upload(host_layers_);
  }

  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }
  int64_t LayerBytes() const { return layer_elements_ * static_cast<int64_t>(BytesOf(dtype_)); }

  // Of the last layer: a row's keys or values of one head.
  std::vector<std::vector<float>> Vectors(size_t row, int kv_head, bool value) const {
    std::vector<std::vector<float>> vectors;
    std::vector<char> block(LayerBytes());
    const int max_blocks = (max_length_ + kBlockSize - 1) / kBlockSize;
    for (int slot = 0; slot < lengths_[row]; ++slot) {
      if (slot % kBlockSize == 0) {
        const int64_t physical = table_[row * max_blocks + slot / kBlockSize];
        MUST(cudaMemcpy(block.data(), data_ + (physical * layers_ + layers_ - 1) * LayerBytes(),
                        block.size(), cudaMemcpyDeviceToHost));
      }
      const int64_t vector = (int64_t{value ? shape_.kv_heads : 0} + kv_head) * kBlockSize +
                             slot % kBlockSize;
      std::vector<float> x(shape_.head_dim);
      for (int d = 0; d < shape_.head_dim; ++d) {
        const int64_t at = vector * shape_.head_dim + d;
        if (dtype_ == DType::kFloat8) {
          const int64_t scales = int64_t{2} * shape_.kv_heads * kBlockSize * shape_.head_dim;
          const auto scale = static_cast<uint8_t>(
              block[scales + 2 * (kv_head * kBlockSize + slot % kBlockSize) + (value ? 1 : 0)]);
          x[d] = Float8{static_cast<uint8_t>(block[at])}.ToFloat() * KvScaleValue(scale);
        } else {
          uint16_t bits;
          std::memcpy(&bits, &block[2 * at], 2);
          x[d] = BFloat16{bits}.ToFloat();
        }
      }
      vectors.push_back(x);
    }
    return vectors;
  }

  Shape shape_;
  DType dtype_;
  std::vector<int> lengths_;
  int max_length_;
  int layers_;
  int64_t layer_elements_;
  int64_t data_bytes_;
  char* data_;
  std::vector<int32_t> table_;
  int32_t* device_table_;
  int32_t* lane_;
  int32_t* position_;
  std::vector<float> q_;
  __nv_bfloat16* device_q_;
  __nv_bfloat16* out_;
  float* products_;
  float* turn_;
  std::vector<LayerParams> host_layers_;
  LayerParams* table_of_layers_;
};

struct Step {
  int rows;
  int length;  // of each; 0: 1/8 ... 8/8 of 8,192 in turn; 1: 20 ... 276 in no order
  DType dtype;
  int max_length = 8200;
};
int LengthOf(const Step& step, int row) {
  return step.length > 1    ? step.length
         : step.length == 1 ? 20 + row * 97 % 257
                            : 1024 * (row * 5 % 8 + 1) - row;
}
#ifndef ATTENTION_STEPS
#define ATTENTION_STEPS                                                                        \
  {16, 8192, DType::kBFloat16}, {16, 0, DType::kBFloat16}, {1, 8192, DType::kBFloat16},         \
      {4, 8192, DType::kBFloat16}, {64, 8192, DType::kBFloat16}, {16, 2048, DType::kBFloat16},  \
      {1, 277, DType::kBFloat16}, {4, 277, DType::kBFloat16}, {16, 277, DType::kBFloat16},      \
      {64, 277, DType::kBFloat16}, {256, 277, DType::kBFloat16}, {4, 512, DType::kBFloat16},    \
      {16, 512, DType::kBFloat16}, {64, 512, DType::kBFloat16}, {16, 8192, DType::kFloat8},     \
      {1, 8192, DType::kFloat8}, {64, 8192, DType::kFloat8}, {16, 277, DType::kFloat8},         \
      {64, 148, DType::kBFloat16, 276}, {256, 148, DType::kBFloat16, 276},                      \
      {256, 1, DType::kBFloat16, 276}, {256, 148, DType::kFloat8, 276}
#endif
constexpr Step kSteps[] = {ATTENTION_STEPS};

int Main(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "";
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  LaunchContext context;
  MUST(cudaStreamCreate(&context.stream));
  context.multiprocessors = properties.multiProcessorCount;
  context.scratch = Allocate<char>(size_t{64} << 20);
  context.counters = Allocate<uint32_t>(cuda::kCounters);
  constexpr size_t kStream = size_t{2} << 30;
  char* const stream = Allocate<char>(kStream);
  const double rate = kStream / GraphMicroseconds(context.stream, [&] {
    MUST(cuda::SIROCCO_CUDA_PATH::LaunchReadStream(stream, kStream, context.counters, context));
  });
  MUST(cudaFree(stream));
  std::printf("%s, %d multiprocessors, read stream %.0f GB/s (2 GiB)\n", properties.name,
              context.multiprocessors, rate / 1e3);
  bool right = true;
  for (const Shape& shape : kShapes) {
    if (std::string(shape.name).find(wanted) == std::string::npos) continue;
    for (const Step& step : kSteps) {
      std::vector<int> lengths;
      for (int row = 0; row < step.rows; ++row) lengths.push_back(LengthOf(step, row));
      const World world(shape, step.dtype, lengths, step.max_length);
      for (const Variant& variant : kVariants) {
        std::printf("%-12s %3d rows of %5d %-8s", shape.name, step.rows, step.length,
                    NameOf(step.dtype).data());
        for (const bool products : {false, true}) {
          context.programmatic = false;
          const double off = world.Check(variant, products, context);
          const bool fits = off >= 0 && off < 1e-2;
          right = right && fits;
          context.programmatic = true;
          const double us = GraphMicroseconds(context.stream, [&] {
                              for (int i = 0; i < world.layers(); ++i) {
                                world.Launch(variant, i, products, context);
                              }
                            }) /
                            world.layers();
          std::printf("  %s %7.2f us %5.0f GB/s %5.1f%% off %.0e%s",
                      products ? "of products" : "a layer", us, world.Bytes() / us / 1e3,
                      100 * world.Bytes() / us / rate, off, fits ? "" : " WRONG");
        }
        std::printf("  %s\n", variant.name);
        std::fflush(stdout);
      }
    }
  }
  return right ? 0 : 1;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) { return sirocco::Main(argc, argv); }
