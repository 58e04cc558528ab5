// Each fused operation against the sequence of operations that it stands for: bit by bit where the
// device promises that, else within the tolerance of its activations.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/fused_ops_test.h"

namespace sirocco {
namespace {

using Floats = std::vector<float>;

class FusedTest : public FusedOpsTest {};

TEST_P(FusedTest, NormQkv) {
  OnShapes([&](const LayerWorld& w) {
    const Floats clean = w.cache.Download(memory());
    const NormQkvParams p = NormQkv(w);
    Execute(p);
    const Floats fused_kv = w.cache.Download(memory());
    EXPECT_NE(fused_kv, clean);
    EXPECT_EQ(Get(w, p.hidden), w.hidden_values);
    Rows stream = p.hidden;
    if (w.shape.post_norms) {
      stream = EagerAdd(w, Delta(w), w.layer.input_post_norm);
      ExpectSame(Get(w, p.sum), Get(w, stream));
      EXPECT_EQ(Get(w, p.delta), w.delta_values);
    }
    const Rows q = EagerQkv(w, Norm(w, stream, w.layer.attention_norm));
    ExpectSame(Get(w, p.q_out), Get(w, q));
    ExpectSame(fused_kv, w.cache.Download(memory()));
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
  const Rows q = EagerQkv(w, Norm(w, p.hidden, w.layer.attention_norm));
  ExpectSame(Get(w, p.q_out), Get(w, q));
}

TEST_P(FusedTest, Qkv) {
  OnShapes([&](const LayerWorld& w) {
    QkvParams p;
    p.rows = w.rows;
    p.map = w.map;
    p.lanes = w.world.lanes();
    p.layer = w.Ref();
    if (!w.shape.on_host) {
      p.layer.counter = memory().Upload(std::vector<int32_t>{1});
      p.layer.index = 0;
    }
    p.normed = Upload(Rounded(w.hidden_values, activations()), w.shape.hidden);
    p.q_out = Empty(w, w.ref.q_rows);
    Execute(p);
    const Floats fused_kv = w.cache.Download(memory());
    const Rows q = EagerQkv(w, p.normed);
    ExpectSame(Get(w, p.q_out), Get(w, q));
    ExpectSame(fused_kv, w.cache.Download(memory()));
  });
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
  OnShapes([&](const LayerWorld& w) {
    DownNormParams p;
    p.rows = w.rows;
    p.layer = w.Ref();
    p.in = Upload(w.mlp_values, w.shape.intermediate);
    p.hidden = Hidden(w);
    p.next_norm = w.next_norm;
    p.normed = Empty(w, w.shape.hidden);
    if (w.shape.post_norms) p.delta = EmptyResidual(w);
    Execute(p);
    const Rows hidden =
        EagerAdd(w, EagerDelta(w, p.in, w.layer.down, w.layer.down_bias), w.layer.mlp_post_norm);
    ExpectSame(Get(w, p.hidden), Get(w, hidden));
    ExpectSame(Get(w, p.normed), Get(w, Norm(w, hidden, w.next_norm)));
  });
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
