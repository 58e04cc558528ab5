// Attention of a decode step as the CUDA backend's kernel does it on Hopper, by an emulated GPU
// (emulated/gpu.h): which slots its blocks, warps and lanes take, where they stand in a ring, what
// operands are made of, and what is merged. Against double precision.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ordered.h"
#include "kernels/cuda/pair_attention.h"
#include "kernels/kv_scale.h"
#include "kernels/params.h"
#include "tests/kernels/emulated/gpu.h"
#include "tests/kernels/emulated/guarded.h"

namespace sirocco {
namespace {

using cuda::hopper::DecodeRows;
using emulated::Guarded;

struct Case {
  std::string name;
  DType dtype = DType::kBFloat16;
  int heads = 4, kv_heads = 1, head_dim = 256;
  int rows = 8;
  int multiprocessors = 16;
  int window = 0;
  int block_size = 16;
  float soft_cap = 0;
  int max_length = 8192;  // where a block has four queries or more, long enough for a ring
  bool pairs = false;     // pair_attention.cu takes it
  bool ordered = false;   // ordered_attention.cu does it, by its blocks and by its clusters
  int turned = 0;         // elements of a head
  bool normed = false;    // q and k
  bool biased = false;    // q
};
void PrintTo(const Case& of, std::ostream* out) { *out << of.name; }

class ClusterAttentionTest : public ::testing::TestWithParam<Case> {
 protected:
  // Which of what the kernel reads may still be written when it begins.
  enum class Before { kQueriesAndCache, kProducts };

  void Make(Before before) {
    emulated::FreeMemory();
    const Case& of = GetParam();
    std::normal_distribution<float> normal;
    for (int row = 0; row < of.rows; ++row) {
      positions_.push_back(kPositions[row % std::size(kPositions)] + row / 8);
      lanes_.push_back(of.rows - 1 - row);
    }
    const int max_blocks = (of.max_length + of.block_size - 1) / of.block_size;
    table_.assign(size_t(of.rows) * max_blocks, -1);
    int blocks = 0;
    for (int row = 0; row < of.rows; ++row) {
      for (int b = 0; b <= positions_[row] / of.block_size; ++b) {
        table_[size_t(lanes_[row]) * max_blocks + b] = blocks++;
      }
    }
    for (int& block : table_) block = block < 0 ? block : blocks - 1 - block;  // in no order

    // Whatever no step has written is NaN.
    const int64_t layer = KvLayerElements(of.dtype, of.kv_heads, of.block_size, of.head_dim);
    kv_.dtype = of.dtype;
    kv_.block_stride = layer;
    kv_.value_offset = int64_t{of.kv_heads} * of.block_size * of.head_dim;
    kv_.block_size = of.block_size;
    kv_.kv_heads = of.kv_heads;
    kv_.head_dim = of.head_dim;
    cache_.emplace(blocks * layer * BytesOf(of.dtype), before == Before::kQueriesAndCache);
    kv_.data = cache_->data();
    const size_t vectors = size_t(of.rows) * of.kv_heads * 2;
    slots_.resize(vectors);
    for (int row = 0; row < of.rows; ++row) {
      for (int head = 0; head < of.kv_heads; ++head) {
        for (const bool value : {false, true}) {
          for (int slot = 0; slot <= positions_[row]; ++slot) {
            std::vector<float> x(of.head_dim);
            const float size = std::ldexp(1.0f, static_cast<int>(random_() % 5) - 2);
            for (float& element : x) element = size * normal(random_);
            if (slot < First(row)) x.assign(x.size(), std::nanf(""));
            SlotsOf(row, head, value).push_back(Write(row, head, value, slot, x));
          }
        }
      }
    }
    q_.emplace(size_t(of.rows) * Width());
    for (float& x : *q_) x = ToBFloat16(2 * normal(random_));
  }

  int Width() const { return GetParam().heads * GetParam().head_dim; }
  int First(int row) const {
    const int window = GetParam().window;
    return window > 0 ? std::max(0, positions_[row] - window + 1) : 0;
  }
  static float ToBFloat16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }
  std::vector<std::vector<float>>& SlotsOf(int row, int head, bool value) {
    return slots_[(size_t(row) * GetParam().kv_heads + head) * 2 + value];
  }

  // Returns what the cache then has.
  std::vector<float> Write(int row, int head, bool value, int slot, const std::vector<float>& x) {
    const Case& of = GetParam();
    const int max_blocks = (of.max_length + of.block_size - 1) / of.block_size;
    const int64_t block = table_[size_t(lanes_[row]) * max_blocks + slot / of.block_size];
    const int in_block = slot % of.block_size;
    const int64_t at = block * kv_.block_stride + (value ? kv_.value_offset : 0) +
                       (int64_t{head} * of.block_size + in_block) * of.head_dim;
    auto* const data = static_cast<unsigned char*>(kv_.data);
    std::vector<float> stored(x.size());
    uint8_t scale = 127;
    if (of.dtype == DType::kFloat8) {
      uint32_t largest = 0;
      for (const float element : x) largest = std::max(largest, MagnitudeBits(element));
      scale = KvScaleFor(largest);
      data[KvScaleOffset(kv_, block, head, in_block) + (value ? 1 : 0)] = scale;
    }
    for (size_t d = 0; d < x.size(); ++d) {
      switch (of.dtype) {
        case DType::kFloat8: {
          const Float8 element = Float8::FromFloat(x[d] * KvScaleInverse(scale));
          data[at + d] = element.bits;
          stored[d] = element.ToFloat() * KvScaleValue(scale);
          break;
        }
        case DType::kFloat16: {
          const __half element = __float2half_rn(x[d]);
          std::memcpy(data + 2 * (at + d), &element, 2);
          stored[d] = __half2float(element);
          break;
        }
        default: {
          const __nv_bfloat16 element = __float2bfloat16_rn(x[d]);
          std::memcpy(data + 2 * (at + d), &element, 2);
          stored[d] = __bfloat162float(element);
        }
      }
    }
    return stored;
  }

  DecodeRows Rows() {
    const Case& of = GetParam();
    DecodeRows p;
    p.rows = of.rows;
    p.map = {lanes_.data(), positions_.data()};
    p.lanes.block_table = table_.data();
    p.lanes.max_lanes = of.rows;
    p.lanes.max_length = of.max_length;
    p.lanes.groups = 1;
    p.lanes.max_blocks = (of.max_length + of.block_size - 1) / of.block_size;
    out_.emplace(q_->size());
    p.out = {out_->data(), DType::kFloat32, Width()};
    return p;
  }
  AttentionShape Shape() const {
    const Case& of = GetParam();
    AttentionShape shape;
    shape.heads = of.heads;
    shape.window = of.window;
    shape.scale = 0.08f;
    shape.soft_cap = of.soft_cap;
    return shape;
  }
  void Launch(const DecodeRows& p) {
    if (GetParam().ordered) return LaunchOrdered(p);
    ASSERT_TRUE(cuda::hopper::ClusterAttentionTakes(p));
    ASSERT_EQ(cuda::hopper::PairAttentionTakes(p, GetParam().multiprocessors), GetParam().pairs);
    const Guarded<unsigned char> scratch(cuda::hopper::ClusterAttentionScratch(p));
    const Guarded<uint32_t> counters(cuda::kCounters);
    std::ranges::fill(counters, 0u);
    cuda::LaunchContext context;
    context.multiprocessors = GetParam().multiprocessors;
    context.scratch = scratch.data();
    context.counters = counters.data();
    ASSERT_EQ(cuda::hopper::LaunchClusterAttention(p, context), cudaSuccess);
    EXPECT_EQ(std::ranges::count(counters, 0u), cuda::kCounters);
  }

  // A row and a KV head as one block's, and then, with room for more, as a cluster's: the same
  // bits.
  void LaunchOrdered(const DecodeRows& p) {
    ASSERT_TRUE(cuda::hopper::OrderedAttentionTakes(p));
    std::vector<std::vector<float>> outs;
    for (const int multiprocessors : {GetParam().multiprocessors, 132, 4096}) {
      const Guarded<unsigned char> scratch(cuda::hopper::OrderedAttentionScratch(p));
      const Guarded<uint32_t> counters(cuda::kCounters);
      std::ranges::fill(counters, 0u);
      std::ranges::fill(*out_, std::nanf(""));
      cuda::LaunchContext context;
      context.multiprocessors = multiprocessors;
      context.scratch = scratch.data();
      context.counters = counters.data();
      ASSERT_EQ(cuda::hopper::LaunchOrderedAttention(p, context), cudaSuccess);
      EXPECT_EQ(std::ranges::count(counters, 0u), cuda::kCounters);
      outs.emplace_back(out_->begin(), out_->end());
      EXPECT_EQ(std::memcmp(outs.back().data(), outs[0].data(), outs[0].size() * sizeof(float)), 0)
          << multiprocessors << " multiprocessors";
    }
  }

  // What becomes of the products of a head of the row.
  void End(int row, const std::vector<float>& norm, float* head) const {
    const int head_dim = GetParam().head_dim;
    double squares = 0;
    for (int d = 0; d < head_dim; ++d) squares += double{head[d]} * head[d];
    for (size_t d = 0; d < norm.size(); ++d) {
      head[d] = static_cast<float>(head[d] / std::sqrt(squares / head_dim + kEpsilon) * norm[d]);
    }
    const int half = GetParam().turned / 2;
    for (int d = 0; d < half; ++d) {
      const double angle = positions_[row] * std::pow(100.0, -d / double(half));
      const double low = head[d], high = head[half + d];
      head[d] = static_cast<float>(low * std::cos(angle) - high * std::sin(angle));
      head[half + d] = static_cast<float>(high * std::cos(angle) + low * std::sin(angle));
    }
  }
  // Cosines and sines by which End turns.
  std::vector<float> Turns() const {
    const int half = GetParam().turned / 2;
    std::vector<float> turns;
    for (int position = 0; position < GetParam().max_length; ++position) {
      for (const bool sine : {false, true}) {
        for (int d = 0; d < half; ++d) {
          const double angle = position * std::pow(100.0, -d / double(half));
          turns.push_back(static_cast<float>(sine ? std::sin(angle) : std::cos(angle)));
        }
      }
    }
    return turns;
  }

  void ExpectOut() {
    const Case& of = GetParam();
    for (int row = 0; row < of.rows; ++row) {
      double largest = 0, off = 0;
      for (int head = 0; head < of.heads; ++head) {
        const int kv_head = head / (of.heads / of.kv_heads);
        const auto& k = SlotsOf(row, kv_head, false);
        const auto& v = SlotsOf(row, kv_head, true);
        const float* const q = &(*q_)[size_t(row) * Width() + head * of.head_dim];
        std::vector<double> scores;
        double maximum = -std::numeric_limits<double>::infinity();
        for (int slot = First(row); slot <= positions_[row]; ++slot) {
          double score = 0;
          for (int d = 0; d < of.head_dim; ++d) score += double{q[d]} * k[slot][d];
          score *= Shape().scale;
          if (of.soft_cap > 0) score = of.soft_cap * std::tanh(score / of.soft_cap);
          scores.push_back(score);
          maximum = std::max(maximum, score);
        }
        double sum = 0;
        std::vector<double> want(of.head_dim);
        for (size_t i = 0; i < scores.size(); ++i) {
          const double weight = std::exp(scores[i] - maximum);
          sum += weight;
          for (int d = 0; d < of.head_dim; ++d) want[d] += weight * v[First(row) + i][d];
        }
        for (int d = 0; d < of.head_dim; ++d) {
          const double got = (*out_)[size_t(row) * Width() + head * of.head_dim + d];
          largest = std::max(largest, std::abs(want[d] / sum));
          const double difference = std::abs(got - want[d] / sum);
          off = difference <= off ? off : difference;  // NaN stays
        }
      }
      EXPECT_LT(off / largest, 3e-5) << "row " << row << " at " << positions_[row];
    }
  }

  static constexpr float kEpsilon = 1e-5f;
  // Ends of tiles, of what a block takes, of a few slots.
  static constexpr int kPositions[] = {399, 15, 16, 530, 0, 255, 777, 100};

  std::mt19937 random_{5};
  std::vector<int32_t> positions_, lanes_, table_;
  std::optional<Guarded<unsigned char>> cache_;
  KvLayer kv_;
  std::vector<std::vector<std::vector<float>>> slots_;
  std::optional<Guarded<float>> q_, out_;
};

TEST_P(ClusterAttentionTest, OfQueries) {
  Make(Before::kQueriesAndCache);
  DecodeRows p = Rows();
  p.q = {q_->data(), DType::kFloat32, Width()};
  p.shape = Shape();
  p.kv = kv_;
  Launch(p);
  ExpectOut();
}

// The row's own slot is not in the cache before; what is there is NaN.
TEST_P(ClusterAttentionTest, OfProducts) {
  const Case& of = GetParam();
  Make(Before::kProducts);
  const int kv_rows = of.kv_heads * of.head_dim;
  std::vector<float> q_norm(of.normed ? of.head_dim : 0), k_norm(q_norm);
  std::vector<float> q_bias(of.biased ? Width() : 0);
  for (auto* values : {&q_norm, &k_norm, &q_bias}) {
    for (float& x : *values) x = std::uniform_real_distribution<float>(0.5f, 1.5f)(random_);
  }
  const std::vector<float> turns = Turns();
  const int width = Width() + 2 * kv_rows;
  const Guarded<float> qkv(size_t(of.rows) * width);
  float* to = qkv.begin();
  for (int row = 0; row < of.rows; ++row) {
    to = std::copy_n(q_->begin() + row * Width(), Width(), to);
    for (int head = 0; head < of.heads; ++head) {
      float* const q = q_->begin() + row * Width() + head * of.head_dim;
      for (size_t d = 0; d < q_bias.size() / of.heads; ++d) q[d] += q_bias[head * of.head_dim + d];
      End(row, q_norm, q);
    }
    for (const bool value : {false, true}) {
      for (int head = 0; head < of.kv_heads; ++head) {
        std::vector<float>& own = SlotsOf(row, head, value).back();
        to = std::ranges::copy(own, to).out;
        if (!value) {
          End(row, k_norm, own.data());
          own = Write(row, head, value, positions_[row], own);
        }
        Write(row, head, value, positions_[row], std::vector<float>(of.head_dim, std::nanf("")));
      }
    }
  }
  LayerParams layer;
  layer.attention = Shape();
  layer.kv = kv_;
  layer.rotary.dim = of.turned;
  layer.rotary.cos_sin = turns.data();
  layer.q_norm = of.normed ? q_norm.data() : nullptr;
  layer.k_norm = of.normed ? k_norm.data() : nullptr;
  layer.norm_epsilon = kEpsilon;
  layer.q_bias = of.biased ? q_bias.data() : nullptr;
  DecodeRows p = Rows();
  p.layer.table = &layer;
  p.layer.host = &layer;
  p.layer.q_rows = Width();
  p.layer.kv_rows = kv_rows;
  p.layer.head_dim = of.head_dim;
  p.layer.kv_dtype = of.dtype;
  p.qkv = {qkv.data(), DType::kFloat32, width};
  Launch(p);
  ExpectOut();
}

const Case kCases[] = {
    {.name = "Wide"},
    {.name = "WideOfClustersOfClusters", .rows = 9, .multiprocessors = 132},
    {.name = "WideOfEight", .rows = 8, .multiprocessors = 132},
    {.name = "WideWindow", .window = 301, .soft_cap = 3},
    {.name = "WideBlocks", .dtype = DType::kFloat16, .block_size = 48},
    {.name = "WideFloat8", .dtype = DType::kFloat8, .window = 333},
    {.name = "WideEightQueries", .heads = 7, .rows = 8},
    {.name = "WideEightQueriesFloat8", .dtype = DType::kFloat8, .heads = 8, .rows = 16},
    {.name = "WideSlotsAtATime", .block_size = 24},
    {.name = "Of128", .heads = 8, .kv_heads = 2, .head_dim = 128},
    {.name = "Of128Window", .heads = 8, .kv_heads = 2, .head_dim = 128, .window = 290},
    {.name = "Of128Float8",
     .dtype = DType::kFloat8,
     .heads = 8,
     .kv_heads = 2,
     .head_dim = 128,
     .rows = 16,
     .window = 123},
    {.name = "Of64", .heads = 16, .kv_heads = 4, .head_dim = 64, .multiprocessors = 64},
    {.name = "Of64EightQueries", .heads = 24, .kv_heads = 4, .head_dim = 64, .multiprocessors = 32},
    {.name = "Of64Float8",
     .dtype = DType::kFloat8,
     .heads = 16,
     .kv_heads = 4,
     .head_dim = 64,
     .rows = 16,
     .multiprocessors = 32,
     .window = 401,
     .soft_cap = 5},
    // Ends of q, k and v, which a ring's blocks have by the copy engine: of whole heads, of parts,
    // of more heads than warps.
    {.name = "WideEnds", .turned = 256, .normed = true, .biased = true},
    {.name = "WideEightQueriesEnds",
     .heads = 7,
     .rows = 8,
     .turned = 128,
     .normed = true,
     .biased = true},
    {.name = "Of128Ends",
     .heads = 8,
     .kv_heads = 2,
     .head_dim = 128,
     .turned = 128,
     .biased = true},
    {.name = "Of64Ends",
     .dtype = DType::kFloat16,
     .heads = 12,
     .kv_heads = 4,
     .head_dim = 64,
     .multiprocessors = 64,
     .turned = 32,
     .normed = true},
    // In registers.
    {.name = "FewQueries", .heads = 2, .kv_heads = 1, .head_dim = 64, .multiprocessors = 8},
    {.name = "FewQueriesFloat8",
     .dtype = DType::kFloat8,
     .heads = 2,
     .kv_heads = 1,
     .head_dim = 128,
     .multiprocessors = 8},
    // Without a ring, in clusters of blocks: of four, two clusters a long row, of eight, and of
    // four that take tiles.
    {.name = "Clusters", .rows = 8, .multiprocessors = 132, .max_length = 1024},
    {.name = "ClustersOfEight", .rows = 2, .multiprocessors = 132, .max_length = 1024},
    {.name = "ClustersInTiles",
     .heads = 8,
     .kv_heads = 2,
     .head_dim = 128,
     .rows = 4,
     .multiprocessors = 132,
     .max_length = 1024},
    {.name = "ClustersInTilesFloat8",
     .dtype = DType::kFloat8,
     .heads = 8,
     .kv_heads = 2,
     .head_dim = 128,
     .rows = 4,
     .multiprocessors = 132,
     .window = 520,
     .max_length = 1024},
};
INSTANTIATE_TEST_SUITE_P(Of, ClusterAttentionTest, ::testing::ValuesIn(kCases),
                         [](const auto& of) { return of.param.name; });

// One, two or four warps a pair.
const Case kPairCases[] = {
    {.name = "Of128",
     .heads = 8,
     .kv_heads = 2,
     .head_dim = 128,
     .multiprocessors = 1,
     .turned = 128},
    {.name = "Of128ByTwo",
     .dtype = DType::kFloat16,
     .heads = 6,
     .kv_heads = 2,
     .head_dim = 128,
     .rows = 9,
     .multiprocessors = 3,
     .window = 290,
     .turned = 64},
    {.name = "Of128ByFour",
     .heads = 8,
     .kv_heads = 2,
     .head_dim = 128,
     .rows = 9,
     .multiprocessors = 5,
     .soft_cap = 3,
     .turned = 128,
     .normed = true,
     .biased = true},
    {.name = "Of128EightQueries",
     .heads = 10,
     .kv_heads = 2,
     .head_dim = 128,
     .rows = 8,
     .multiprocessors = 4,
     .turned = 128},
    {.name = "Of128Passes",
     .dtype = DType::kFloat8,
     .heads = 18,
     .kv_heads = 2,
     .head_dim = 128,
     .rows = 8,
     .multiprocessors = 4,
     .window = 90,
     .turned = 64,
     .normed = true},
    {.name = "Of64",
     .heads = 16,
     .kv_heads = 4,
     .head_dim = 64,
     .rows = 9,
     .multiprocessors = 2,
     .turned = 64},
    {.name = "Of64ByTwo",
     .dtype = DType::kFloat8,
     .heads = 16,
     .kv_heads = 4,
     .head_dim = 64,
     .rows = 9,
     .multiprocessors = 5,
     .block_size = 32,
     .turned = 64},
    {.name = "Wide", .rows = 9, .multiprocessors = 1, .turned = 256, .normed = true},
    {.name = "WideByFour",
     .dtype = DType::kFloat8,
     .rows = 9,
     .multiprocessors = 5,
     .window = 301,
     .turned = 256,
     .normed = true},
};
std::vector<Case> PairCases() {
  std::vector<Case> cases(std::begin(kPairCases), std::end(kPairCases));
  for (Case& of : cases) {
    of.max_length = 1024;
    of.pairs = true;
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(OfPairs, ClusterAttentionTest, ::testing::ValuesIn(PairCases()),
                         [](const auto& of) { return of.param.name; });

// By blocks where there are few multiprocessors.
const Case kOrderedCases[] = {
    {.name = "Of64", .heads = 8, .kv_heads = 2, .head_dim = 64, .rows = 9, .turned = 64},
    {.name = "Of64Window",
     .heads = 3,
     .kv_heads = 1,
     .head_dim = 64,
     .window = 301,
     .block_size = 24,
     .soft_cap = 3,
     .turned = 32,
     .biased = true},
    {.name = "Of64ShortWindow",
     .heads = 4,
     .kv_heads = 1,
     .head_dim = 64,
     .window = 40,
     .turned = 64},
    {.name = "Of64Float8",
     .dtype = DType::kFloat8,
     .heads = 7,
     .kv_heads = 1,
     .head_dim = 64,
     .window = 500,
     .turned = 64,
     .normed = true},
    {.name = "Of128", .heads = 8, .kv_heads = 2, .head_dim = 128, .turned = 128, .normed = true},
    {.name = "Of128Window",
     .dtype = DType::kFloat16,
     .heads = 6,
     .kv_heads = 2,
     .head_dim = 128,
     .window = 290,
     .block_size = 32,
     .turned = 64},
    {.name = "Of128Float8",
     .dtype = DType::kFloat8,
     .heads = 4,
     .kv_heads = 1,
     .head_dim = 128,
     .window = 123,
     .soft_cap = 5,
     .turned = 128},
};
std::vector<Case> OrderedCases() {
  std::vector<Case> cases(std::begin(kOrderedCases), std::end(kOrderedCases));
  for (Case& of : cases) {
    of.multiprocessors = 1;
    of.max_length = 1024;
    of.ordered = true;
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Ordered, ClusterAttentionTest, ::testing::ValuesIn(OrderedCases()),
                         [](const auto& of) { return of.param.name; });

}  // namespace
}  // namespace sirocco
