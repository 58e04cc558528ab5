// Each fused operation against the sequence of operations that it stands for: bit by bit where the
// device promises that, else within the tolerance of its activations.
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>
#include <utility>

#include "tests/kernels/fused_ops_test.h"

namespace sirocco {
namespace {

using Floats = std::vector<float>;

class FusedTest : public FusedOpsTest {};

TEST_P(FusedTest, NormQkv) {
  OnShapes([&](const LayerWorld& w) {
    const NormQkvParams p = NormQkv(w);
    Execute(p);
    EXPECT_EQ(Get(w, p.hidden), w.hidden_values);
    Rows stream = p.hidden;
    if (w.shape.post_norms) {
      stream = EagerAdd(w, Delta(w), w.layer.input_post_norm);
      ExpectSame(Get(w, p.sum), Get(w, stream));
      EXPECT_EQ(Get(w, p.delta), w.delta_values);
    }
    ExpectSame(Get(w, p.qkv), EagerQkv(w, Norm(w, stream, w.layer.attention_norm)));
  });
}

// The first layer of a model with post-norms: nothing is to be added yet, whatever `delta` holds.
TEST_P(FusedTest, NormQkvWithoutAnInputPostNormCopiesTheStream) {
  const LayerWorld w(memory(), Shape(true), 5, activations(), dtype());
  NormQkvParams p = NormQkv(w);
  p.layer = Changed(w, [](LayerParams& layer) { layer.input_post_norm = nullptr; });
  p.delta = memory().Residual(Floats(w.delta_values.size(), std::nanf("")), w.shape.hidden);
  Execute(p);
  EXPECT_EQ(Get(w, p.sum), w.hidden_values);
  ExpectSame(Get(w, p.qkv), EagerQkv(w, Norm(w, p.hidden, w.layer.attention_norm)));
}

TEST_P(FusedTest, Qkv) {
  OnShapes([&](const LayerWorld& w) {
    QkvParams p;
    p.rows = w.rows;
    p.layer = w.Ref();
    if (!w.shape.on_host) {
      p.layer.counter = memory().Upload(std::vector<int32_t>{1});
      p.layer.index = 0;
    }
    p.normed = Upload(Rounded(w.hidden_values, activations()), w.shape.hidden);
    p.qkv = EmptyQkv(w);
    Execute(p);
    ExpectSame(Get(w, p.qkv), EagerQkv(w, p.normed));
  });
}

TEST_P(FusedTest, QkvAttention) {
  OnShapes([&](const LayerWorld& w) { ExpectQkvAttention(w); });
}

// Heads of every size that a kernel may cut in its own way, turned whole, in part or not at all;
// few that share a KV head and many.
TEST_P(FusedTest, QkvAttentionOfHeadsOfAllSizes) {
  if (InBlocks(dtype())) GTEST_SKIP() << "the same products, of other weights";
  for (const auto& [head_dim, rotary_dim] :
       {std::pair(12, 8), std::pair(64, 64), std::pair(64, 24), std::pair(68, 24),
        std::pair(128, 0), std::pair(128, 128), std::pair(256, 256), std::pair(256, 64),
        std::pair(512, 512), std::pair(1024, 64)}) {
    for (const int32_t heads : {1, 2, 4, 7, 20}) {
      if (heads * head_dim > 4096) continue;  // nothing new, and slow
      const LayerShape shape{.hidden = 64,
                             .heads = heads,
                             .kv_heads = 1,
                             .head_dim = head_dim,
                             .rotary_dim = rotary_dim,
                             .head_norms = heads != 2,
                             .on_host = heads != 4,
                             .adjacent = true};
      OnShape(shape, heads == 4 ? 3 : 11, [&](const LayerWorld& w) { ExpectQkvAttention(w); });
    }
  }
}

// So many rows that the CUDA backend takes the longer ones in tiles (cluster_tiles.cuh), and so
// many that its blocks have half as many warps.
TEST_P(FusedTest, QkvAttentionOfManyRows) {
  if (InBlocks(dtype())) GTEST_SKIP() << "the same products, of other weights";
  for (const auto& [head_dim, heads] :
       {std::pair(64, 12), std::pair(128, 3), std::pair(128, 15), std::pair(256, 6)}) {
    SCOPED_TRACE(head_dim);
    const LayerShape shape{.hidden = 64,
                           .heads = heads,
                           .kv_heads = 3,
                           .head_dim = head_dim,
                           .rotary_dim = head_dim,
                           .adjacent = true};
    for (const int32_t rows : {70, 90}) {
      OnShape(shape, rows, [&](const LayerWorld& w) { ExpectQkvAttention(w); });
    }
  }
}

// So many rows whose layer the host knows that one warp of the CUDA backend, or two or four, have a
// row and a KV head for themselves (pair_attention.cu).
TEST_P(FusedTest, QkvAttentionOfManyShortRows) {
  if (InBlocks(dtype())) GTEST_SKIP() << "the same products, of other weights";
  for (const auto& [head_dim, rotary_dim, heads, rows, head_norms] :
       {std::tuple(64, 64, 12, 90, false), std::tuple(64, 32, 10, 360, true),
        std::tuple(128, 128, 9, 90, true), std::tuple(128, 64, 15, 90, false),
        std::tuple(256, 256, 12, 50, true)}) {
    SCOPED_TRACE(::testing::Message() << heads << " of " << head_dim << ", " << head_norms);
    const LayerShape shape{.hidden = 64,
                           .heads = heads,
                           .kv_heads = heads == 10 ? 2 : 3,
                           .head_dim = head_dim,
                           .rotary_dim = rotary_dim,
                           .biases = head_norms,
                           .head_norms = head_norms,
                           .on_host = true,
                           .adjacent = true};
    OnShape(shape, rows, [&](const LayerWorld& w) { ExpectQkvAttention(w); });
  }
}

// As prompts of most models have them: many rows, heads turned whole, with neither biases nor
// norms. The CUDA backend ends some heads at once where the host knows the layer.
TEST_P(FusedTest, QkvAttentionOfManyRowsAndPlainHeads) {
  if (InBlocks(dtype())) GTEST_SKIP() << "the same products, of other weights";
  for (const auto& [head_dim, heads, kv_heads] :
       {std::tuple(64, 8, 4), std::tuple(128, 4, 4), std::tuple(64, 6, 2)}) {
    SCOPED_TRACE(head_dim);
    for (const bool turned : {true, false}) {
      const LayerShape shape{.hidden = 64,
                             .heads = heads,
                             .kv_heads = kv_heads,
                             .head_dim = head_dim,
                             .rotary_dim = turned ? head_dim : head_dim / 2,
                             .biases = false,
                             .on_host = true,
                             .adjacent = true};
      OnShape(shape, 133, [&](const LayerWorld& w) { ExpectQkvAttention(w); });
    }
  }
}

TEST_P(FusedTest, NormQkNormsQAndKWhole) {
  for (const auto& [heads, head_dim] : {std::pair(4, 16), std::pair(3, 17), std::pair(10, 128)}) {
    const LayerShape shape{.hidden = 64,
                           .heads = heads,
                           .kv_heads = 1,
                           .head_dim = head_dim,
                           .rotary_dim = 8,
                           .biases = false,
                           .whole_norms = true};
    OnShape(shape, 5, [&](const LayerWorld& w) {
      const int32_t width = w.ref.q_rows + 2 * w.ref.kv_rows;
      const Floats values = Values(3).Floats(int64_t{w.rows} * width);
      NormQkParams p;
      p.rows = w.rows;
      p.layer = w.Ref();
      p.qkv = memory().Residual(values, width);
      Execute(p);
      const Floats q_norm = memory().Download(w.layer.q_whole_norm, w.ref.q_rows);
      const Floats k_norm = memory().Download(w.layer.k_whole_norm, w.ref.kv_rows);
      reference::Doubles want;
      for (int32_t row = 0; row < w.rows; ++row) {
        const auto part = [&](int32_t first, int32_t count) {
          return reference::Wide(reference::Slice(values, int64_t{row} * width + first, count));
        };
        const auto append = [&](const reference::Doubles& more) {
          want.insert(want.end(), more.begin(), more.end());
        };
        const float epsilon = w.layer.norm_epsilon;
        append(reference::RmsNorm(part(0, w.ref.q_rows), w.ref.q_rows, q_norm, epsilon));
        append(
            reference::RmsNorm(part(w.ref.q_rows, w.ref.kv_rows), w.ref.kv_rows, k_norm, epsilon));
        append(part(w.ref.q_rows + w.ref.kv_rows, w.ref.kv_rows));
      }
      ExpectNear(Get(w, p.qkv), want, residual_tolerance());
    });
  }
}

TEST_P(FusedTest, QkvAttentionTakesItsLayerFromTheTable) {
  const LayerWorld w(memory(), Shape(), 5, activations(), dtype());
  const Rows qkv =
      memory().Residual(Values(3).Floats(int64_t{w.rows} * (w.ref.q_rows + 2 * w.ref.kv_rows)),
                        w.ref.q_rows + 2 * w.ref.kv_rows);
  const Floats sums = Get(w, qkv);
  QkvAttentionParams p = QkvAttention(w, qkv);
  Execute(p);
  const Floats want = Get(w, p.out);
  p.qkv = memory().Residual(sums, qkv.width);  // the first may be overwritten
  p.layer.counter = memory().Upload(std::vector<int32_t>{1});
  p.layer.index = 0;
  Execute(p);
  EXPECT_EQ(Get(w, p.out), want);
}

TEST_P(FusedTest, OutputResidual) {
  OnShapes([&](const LayerWorld& w) {
    OutputResidualParams p;
    p.rows = w.rows;
    p.layer = w.Ref();
    p.attention = Upload(w.attention_values, w.ref.q_rows);
    p.hidden = Hidden(w);
    if (w.shape.post_norms) p.delta = EmptyResidual(w);
    Execute(p);
    const Rows delta = EagerDelta(w, p.attention, w.layer.o, w.layer.o_bias);
    if (w.shape.post_norms) {
      ExpectSame(Get(w, p.delta), Get(w, delta));
      EXPECT_EQ(Get(w, p.hidden), w.hidden_values);
    } else {
      ExpectSame(Get(w, p.hidden), Get(w, EagerAdd(w, delta, nullptr)));
    }
  });
}

TEST_P(FusedTest, NormGateUp) {
  OnShapes([&](const LayerWorld& w) {
    NormGateUpParams p;
    p.rows = w.rows;
    p.layer = w.Ref();
    p.hidden = Hidden(w);
    p.normed = Empty(w, w.shape.hidden);
    p.out = Empty(w, w.shape.intermediate);
    if (w.shape.post_norms) {
      p.delta = Delta(w);
      p.sum = EmptyResidual(w);
    }
    Execute(p);
    EXPECT_EQ(Get(w, p.hidden), w.hidden_values);
    Rows stream = p.hidden;
    if (w.shape.post_norms) {
      stream = EagerAdd(w, Delta(w), w.layer.attention_post_norm);
      ExpectSame(Get(w, p.sum), Get(w, stream));
      EXPECT_EQ(Get(w, p.delta), w.delta_values);
    }
    const Rows normed = Norm(w, stream, w.layer.mlp_norm);
    GatedActivationParams gated;
    gated.rows = w.rows;
    gated.gate = Product(w, normed, w.layer.gate, w.layer.gate_bias);
    gated.up = Product(w, normed, w.layer.up, w.layer.up_bias);
    gated.out = gated.gate;
    gated.activation = w.layer.activation;
    Execute(gated);
    ExpectSame(Get(w, p.out), Get(w, gated.out));
  });
}

TEST_P(FusedTest, DownResidualAdvancesTheCounter) {
  OnShapes([&](const LayerWorld& w) {
    int32_t* counter = memory().Upload(std::vector<int32_t>{1});
    DownResidualParams p;
    p.rows = w.rows;
    p.layer = w.ref;
    p.layer.counter = counter;
    p.layer.index = 0;
    p.in = Upload(w.mlp_values, w.shape.intermediate);
    p.hidden = Hidden(w);
    p.advance = counter;
    if (w.shape.post_norms) p.delta = EmptyResidual(w);
    Execute(p);
    const Rows delta = EagerDelta(w, p.in, w.layer.down, w.layer.down_bias);
    if (w.shape.post_norms) {
      ExpectSame(Get(w, p.delta), Get(w, delta));
      EXPECT_EQ(Get(w, p.hidden), w.hidden_values);
    } else {
      ExpectSame(Get(w, p.hidden), Get(w, EagerAdd(w, delta, nullptr)));
    }
    EXPECT_EQ(memory().Download(counter, 1)[0], 2);
  });
}

TEST_P(FusedTest, DownResidualWithoutACounter) {
  LayerWorld w(memory(), Shape(), 2, activations(), dtype());
  DownResidualParams p;
  p.rows = w.rows;
  p.layer = w.Ref();
  p.in = Upload(w.mlp_values, w.shape.intermediate);
  p.hidden = Hidden(w);
  Execute(p);
  const Rows delta = EagerDelta(w, p.in, w.layer.down, w.layer.down_bias);
  ExpectSame(Get(w, p.hidden), Get(w, EagerAdd(w, delta, nullptr)));
}

TEST_P(FusedTest, DownNorm) {
  OnShapes([&](const LayerWorld& w) { ExpectDownNorm(w, DownNorm(w)); });
}

// The norm that takes in a residual, against a norm, an addition and a norm.
TEST_P(FusedTest, AddNorm) {
  OnShapes([&](const LayerWorld& w) {
    AddNormParams p;
    p.rows = w.rows;
    p.sum = Hidden(w);
    p.delta = Delta(w);
    p.post_norm = w.layer.mlp_post_norm;
    p.weight = w.next_norm;
    p.epsilon = w.layer.norm_epsilon;
    p.normed = Empty(w, w.shape.hidden);
    Execute(p);
    const Rows hidden = EagerAdd(w, Delta(w), w.layer.mlp_post_norm);
    ExpectSame(Get(w, p.sum), Get(w, hidden));
    if (w.next_norm == nullptr) return;  // nothing is made of the sum
    ExpectSame(Get(w, p.normed), Get(w, Norm(w, hidden, w.next_norm)));
  });
}

TEST_P(FusedTest, TheStreamsTwoBuffersMustDiffer) {
  const LayerWorld w(memory(), Shape(true), 2, activations(), dtype());
  NormQkvParams qkv = NormQkv(w);
  qkv.sum = qkv.hidden;
  EXPECT_EQ(ops().Run(qkv).code(), absl::StatusCode::kInvalidArgument);
  qkv.sum = Rows();  // one of the two
  EXPECT_EQ(ops().Run(qkv).code(), absl::StatusCode::kInvalidArgument);
  OutputResidualParams output;
  output.rows = w.rows;
  output.layer = w.Ref();
  output.attention = Upload(w.attention_values, w.ref.q_rows);
  output.hidden = Hidden(w);
  output.delta = output.hidden;
  EXPECT_EQ(ops().Run(output).code(), absl::StatusCode::kInvalidArgument);
}

SIROCCO_ON_ALL_TYPED_DEVICES(FusedTest);
INSTANTIATE_TEST_SUITE_P(Blocks, FusedTest, ::testing::ValuesIn(BlockCases()),
                         [](const auto& info) { return CaseName(info.param); });

}  // namespace
}  // namespace sirocco
