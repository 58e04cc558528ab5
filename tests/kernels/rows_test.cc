// The operations row by row: begin of a step, embedding, norm, rotary, KV write, activation,
// addition, gathering.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/ops_test.h"
#include "tests/kernels/reference.h"
#include "tests/kernels/world.h"

namespace sirocco {
namespace {

using reference::Doubles;
using reference::Wide;

TEST_P(OpsTest, BeginStepUpdatesTablesPositionsAndTheCounter) {
  World world(memory(), {.lanes = 3, .max_length = 64, .groups = 2, .block_size = 16}, 1);
  std::vector<Lane> lanes = memory().Download(world.lanes().lane, 3);
  BeginStepParams p;
  p.rows = 2;
  p.map = world.Map({2, 0}, {-7, -7});
  p.derive_positions = true;
  p.updates = memory().Upload(std::vector<BlockUpdate>{{2, 1, 3, 777}, {0, 0, 0, 5}, {1, 1, 1, 9}});
  p.update_count = memory().Upload(std::vector<int32_t>{2});
  p.layer_counter = memory().Upload(std::vector<int32_t>{26});
  p.lanes = world.lanes();
  const auto before = memory().Download(world.lanes().block_table, 3 * 2 * 4);
  Execute(p);
  auto expected = before;
  expected[(2 * 2 + 1) * 4 + 3] = 777;
  expected[0] = 5;  // and the third update is beyond the count
  EXPECT_EQ(memory().Download(world.lanes().block_table, 3 * 2 * 4), expected);
  EXPECT_EQ(memory().Download(p.map.position, 2),
            (std::vector<int32_t>{lanes[2].length - 1, lanes[0].length - 1}));
  EXPECT_EQ(memory().Download(p.layer_counter, 1)[0], 0);
}

TEST_P(OpsTest, BeginStepKeepsGivenPositions) {
  World world(memory(), {}, 1);
  BeginStepParams p;
  p.rows = 2;
  p.map = world.Map({1, 1}, {4, 5});
  p.lanes = world.lanes();
  Execute(p);
  EXPECT_EQ(memory().Download(p.map.position, 2), (std::vector<int32_t>{4, 5}));
}

TEST_P(OpsTest, RmsNorm) {
  for (const int32_t width : {1, 15, 64, 576, 1000}) {
    SCOPED_TRACE(width);
    Values values(static_cast<uint32_t>(width));
    const int32_t rows = 70;
    const auto in = values.Floats(int64_t{rows} * width, 3);
    const auto weight = values.Floats(width, 2);
    RmsNormParams p;
    p.rows = rows;
    p.in = memory().Residual(in, width);
    p.weight = memory().Upload(weight);
    p.epsilon = 1e-5f;
    p.out = memory().Empty(rows, activations(), width);
    Execute(p);
    const Doubles want = reference::RmsNorm(Wide(in), width, weight, p.epsilon);
    ExpectNear(memory().Download(p.out, rows), want, tolerance());
    p.out = p.in;  // in place
    Execute(p);
    ExpectNear(memory().Download(p.out, rows), want, residual_tolerance());
  }
}

TEST_P(OpsTest, RmsNormWithoutAWeightOnlyChangesTheType) {
  for (const int32_t width : {15, 64}) {
    const auto in = Values(3).Floats(int64_t{5} * width, 3);
    RmsNormParams p;
    p.rows = 5;
    p.in = memory().Residual(in, width);
    p.out = memory().Empty(5, activations(), width);
    Execute(p);
    EXPECT_EQ(memory().Download(p.out, 5), Rounded(in, activations()));
  }
}

TEST_P(OpsTest, RmsNormOfZerosIsZero) {
  RmsNormParams p;
  p.rows = 1;
  p.in = memory().EmptyResidual(1, 8);
  p.weight = memory().Upload(std::vector<float>(8, 1.0f));
  p.epsilon = 1e-5f;
  p.out = memory().Empty(1, activations(), 8);
  Execute(p);
  EXPECT_EQ(memory().Download(p.out, 1), std::vector<float>(8, 0.0f));
}

TEST_P(OpsTest, HeadNormNormsEachHeadInPlace) {
  for (const auto& [heads, head_dim] : {std::pair(1, 8), std::pair(3, 17), std::pair(5, 256)}) {
    SCOPED_TRACE(head_dim);
    const int32_t rows = 9;
    Values values(static_cast<uint32_t>(head_dim));
    const auto in = Rounded(values.Floats(int64_t{rows} * heads * head_dim, 3), activations());
    const auto weight = values.Floats(head_dim, 2);
    HeadNormParams p;
    p.rows = rows;
    p.heads = memory().Activations(in, activations(), heads * head_dim);
    p.head_dim = head_dim;
    p.weight = memory().Upload(weight);
    p.epsilon = 1e-6f;
    Execute(p);
    ExpectNear(memory().Download(p.heads, rows),
               reference::RmsNorm(Wide(in), head_dim, weight, p.epsilon), tolerance());
  }
}

TEST_P(OpsTest, HeadNormRefusesATornHead) {
  HeadNormParams p;
  p.rows = 1;
  p.heads = memory().Empty(1, activations(), 20);
  p.head_dim = 8;
  p.weight = memory().Upload(std::vector<float>(8, 1.0f));
  EXPECT_EQ(ops().Run(p).code(), absl::StatusCode::kInvalidArgument);
}

// With and without either norm: what is added, and what is made of the sum.
TEST_P(OpsTest, AddNorm) {
  for (const int32_t width : {1, 61, 576, 1152}) {
    for (const bool post_norm : {false, true}) {
      for (const bool norm : {false, true}) {
        SCOPED_TRACE(::testing::Message() << width << " " << post_norm << norm);
        const int32_t rows = 40;
        Values values(static_cast<uint32_t>(width));
        const auto sum = values.Floats(int64_t{rows} * width, 3);
        const auto delta = values.Floats(int64_t{rows} * width, 2);
        const auto post_weight = values.Floats(width, 2);
        const auto weight = values.Floats(width, 2);
        AddNormParams p;
        p.rows = rows;
        p.sum = memory().Residual(sum, width);
        p.delta = memory().Residual(delta, width);
        p.post_norm = post_norm ? memory().Upload(post_weight) : nullptr;
        p.weight = norm ? memory().Upload(weight) : nullptr;
        p.epsilon = 1e-6f;
        if (norm) p.normed = memory().Empty(rows, activations(), width);
        Execute(p);
        Doubles added = Wide(delta);
        if (post_norm) added = reference::RmsNorm(added, width, post_weight, p.epsilon);
        for (size_t i = 0; i < added.size(); ++i) added[i] += sum[i];
        ExpectNear(memory().Download(p.sum, rows), added, residual_tolerance());
        if (!norm) continue;
        ExpectNear(memory().Download(p.normed, rows),
                   reference::RmsNorm(added, width, weight, p.epsilon), tolerance());
      }
    }
  }
}

TEST_P(OpsTest, RotaryTurnsWholeHeadsAndTheirFirstPart) {
  for (const auto& [head_dim, dim] : {std::pair(64, 64), std::pair(80, 20), std::pair(17, 16)}) {
    SCOPED_TRACE(head_dim);
    const int32_t heads = 3;
    const int32_t rows = 5;
    World world(memory(), {}, 2);
    const auto cos_sin = reference::RotaryValues(64, dim);
    const auto in = Rounded(Values(3).Floats(int64_t{rows} * heads * head_dim), activations());
    const std::vector<int32_t> position = {0, 1, 63, 17, 17};
    RotaryParams p;
    p.rows = rows;
    p.map = world.Map({0, 1, 2, 3, 0}, position);
    p.heads = memory().Activations(in, activations(), heads * head_dim);
    p.head_dim = head_dim;
    p.table = {memory().Upload(cos_sin), dim};
    Execute(p);
    Doubles want = Wide(in);
    for (int32_t r = 0; r < rows; ++r) {
      reference::Turn(&want[int64_t{r} * heads * head_dim], heads, head_dim, cos_sin, dim,
                      position[r]);
    }
    ExpectNear(memory().Download(p.heads, rows), want, tolerance());
  }
}

TEST_P(OpsTest, Add) {
  const auto sum = Values(4).Floats(3 * 37);
  const auto delta = Values(5).Floats(3 * 37);
  AddParams p{3, memory().Residual(sum, 37), memory().Residual(delta, 37)};
  Execute(p);
  Doubles want = Wide(sum);
  for (size_t i = 0; i < want.size(); ++i) want[i] += delta[i];
  ExpectNear(memory().Download(p.sum, 3), want, residual_tolerance());
  EXPECT_EQ(memory().Download(p.delta, 3), delta);
}

TEST_P(OpsTest, GatedActivation) {
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    for (const int32_t width : {1, 16, 50, 1536}) {
      const int32_t rows = 20;
      // Wide enough for both ends of the curves.
      auto gate = Rounded(Values(6).Floats(int64_t{rows} * width, 12), activations());
      gate[0] = 90;
      const auto up = Rounded(Values(7).Floats(int64_t{rows} * width), activations());
      GatedActivationParams p;
      p.rows = rows;
      p.gate = memory().Activations(gate, activations(), width);
      p.up = memory().Activations(up, activations(), width);
      p.out = memory().Empty(rows, activations(), width);
      p.activation = activation;
      Execute(p);
      const auto got = memory().Download(p.out, rows);
      for (size_t i = 0; i < got.size(); ++i) {
        const double want = reference::Activate(activation, gate[i]) * up[i];
        ASSERT_NEAR(got[i], want, tolerance() * (std::abs(want) + 0.1)) << gate[i];
      }
    }
  }
}

TEST_P(OpsTest, GatedActivationFarFromZero) {
  const auto gate = Rounded({-1e30f, 1e30f, -200, 200}, activations());
  GatedActivationParams p;
  p.rows = 1;
  p.gate = memory().Activations(gate, activations(), 4);
  p.up = memory().Activations({1, 1, 1, 1}, activations(), 4);
  p.out = memory().Empty(1, activations(), 4);
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    p.activation = activation;
    Execute(p);
    const auto got = memory().Download(p.out, 1);
    EXPECT_NEAR(got[0], 0, 1e-20);
    EXPECT_EQ(got[1], gate[1]);
    EXPECT_NEAR(got[2], 0, 1e-20);
    EXPECT_EQ(got[3], gate[3]);
  }
}

TEST_P(OpsTest, AdjustLogitsScalesAndCaps) {
  for (const int32_t width : {1, 37, 8192, 9000}) {
    for (const float soft_cap : {0.0f, 3.0f}) {
      SCOPED_TRACE(::testing::Message() << width << " " << soft_cap);
      const int32_t rows = 3;
      auto logits = Values(static_cast<uint32_t>(width)).Floats(int64_t{rows} * width, 20);
      logits[0] = 1000;  // far beyond the cap
      AdjustLogitsParams p;
      p.rows = rows;
      p.logits = memory().Residual(logits, width);
      p.scale = 0.25f;
      p.soft_cap = soft_cap;
      Execute(p);
      Doubles want = Wide(logits);
      for (double& value : want) {
        value *= 0.25;
        if (soft_cap > 0) value = soft_cap * std::tanh(value / soft_cap);
      }
      ExpectNear(memory().Download(p.logits, rows), want, residual_tolerance());
    }
  }
}

TEST_P(OpsTest, GatherRows) {
  const auto in = Values(8).Floats(6 * 5);
  GatherRowsParams p;
  p.rows = 3;
  p.in = memory().Residual(in, 5);
  p.index = memory().Upload(std::vector<int32_t>{5, 0, 5});
  p.out = memory().EmptyResidual(3, 5);
  Execute(p);
  std::vector<float> want = reference::Slice(in, 25, 5);
  want.insert(want.end(), in.begin(), in.begin() + 5);
  want.insert(want.end(), in.begin() + 25, in.end());
  EXPECT_EQ(memory().Download(p.out, 3), want);
}

TEST_P(TypedOpsTest, EmbedScalesRowsOfTheTable) {
  World world(memory(), {.vocab_size = 40}, 9);
  const int32_t hidden = 33;
  const auto table = Rounded(Values(10).Floats(40 * hidden), dtype());
  EmbedParams p;
  p.rows = 3;
  p.map = world.Map({3, 0, 1}, {63, 0, 12});
  p.lanes = world.lanes();
  p.table = memory().Weights(table, dtype(), 40, hidden);
  p.scale = 24.0f;
  p.out = memory().EmptyResidual(3, hidden);
  Execute(p);
  Doubles want;
  for (const auto& [lane, position] : {std::pair(3, 63), std::pair(0, 0), std::pair(1, 12)}) {
    const int32_t id = world.HistoryAt(lane, position);
    for (int32_t i = 0; i < hidden; ++i) want.push_back(24.0 * table[id * hidden + i]);
  }
  ExpectNear(memory().Download(p.out, 3), want, residual_tolerance());
}

TEST_P(TypedOpsTest, WriteKvWritesItsSlotsAndNothingElse) {
  World world(memory(), {.groups = 2, .block_size = 8}, 11);
  const int32_t kv_heads = 3;
  const int32_t dim = 18;
  KvCache cache(memory(), world, dtype(), kv_heads, dim, 1, 12);
  auto want = cache.Download(memory());
  const std::vector<int32_t> lane = {2, 0, 3, 2};
  const std::vector<int32_t> position = {0, 63, 9, 1};
  const auto k = Rounded(Values(13).Floats(4 * kv_heads * dim), activations());
  const auto v = Rounded(Values(14).Floats(4 * kv_heads * dim), activations());
  WriteKvParams p;
  p.rows = 4;
  p.map = world.Map(lane, position);
  p.lanes = world.lanes();
  p.k = memory().Activations(k, activations(), kv_heads * dim);
  p.v = memory().Activations(v, activations(), kv_heads * dim);
  p.kv = cache.layer();
  Execute(p);
  const auto k_stored = Rounded(k, dtype());
  const auto v_stored = Rounded(v, dtype());
  for (int32_t r = 0; r < 4; ++r) {
    for (int32_t h = 0; h < kv_heads; ++h) {
      for (int32_t d = 0; d < dim; ++d) {
        const int64_t from = (int64_t{r} * kv_heads + h) * dim + d;
        want[cache.IndexOf(world, lane[r], position[r], h, false) + d] = k_stored[from];
        want[cache.IndexOf(world, lane[r], position[r], h, true) + d] = v_stored[from];
      }
    }
  }
  EXPECT_EQ(cache.Download(memory()), want);
}

SIROCCO_ON_ALL_DEVICES(OpsTest);
SIROCCO_ON_ALL_TYPED_DEVICES(TypedOpsTest);

}  // namespace
}  // namespace sirocco
