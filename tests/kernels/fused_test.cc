// Each fused operation against the sequence of operations that it stands for: bit by bit where the
// device promises that, else within the tolerance of its activations.
#include <gtest/gtest.h>

#include "tests/kernels/fused_world.h"
#include "tests/kernels/ops_test.h"
#include "tests/kernels/reference.h"

namespace sirocco {
namespace {

using Floats = std::vector<float>;

class FusedTest : public TypedOpsTest {
 protected:
  // Runs `check` over shapes: even ones, odd ones with partial rotation, one row and many.
  template <typename Check>
  void OnShapes(const Check& check) {
    const LayerShape odd{.hidden = 61,
                         .heads = 3,
                         .kv_heads = 1,
                         .head_dim = 17,
                         .rotary_dim = 10,
                         .intermediate = 101,
                         .biases = false,
                         .activation = Activation::kGeluTanh};
    for (const LayerShape& shape : {LayerShape(), odd}) {
      for (const int32_t rows : {1, 3, 37, 150}) {
        SCOPED_TRACE(::testing::Message() << "hidden " << shape.hidden << ", rows " << rows);
        LayerWorld world(memory(), shape, rows, activations(), dtype());
        check(world);
      }
    }
  }

  void ExpectSame(const Floats& fused, const Floats& eager) {
    if (GetParam().device.invariant) {
      EXPECT_EQ(fused, eager);
    } else {
      ExpectNear(fused, reference::Wide(eager), tolerance());
    }
  }

  Rows Upload(const Floats& values, int32_t width) {
    return memory().Activations(values, activations(), width);
  }
  Rows Empty(const LayerWorld& w, int32_t width) {
    return memory().Empty(w.rows, activations(), width);
  }
  Floats Get(const LayerWorld& w, const Rows& rows) { return memory().Download(rows, w.rows); }

  Rows Norm(const LayerWorld& w, const Rows& in, const float* weight) {
    RmsNormParams p{w.rows, in, weight, w.layer.norm_epsilon, Empty(w, in.width)};
    Execute(p);
    return p.out;
  }
  Rows Product(const LayerWorld& w, const Rows& in, const Matrix& weight, const float* bias) {
    MatMulParams p{w.rows, in, weight, bias, Empty(w, weight.rows)};
    Execute(p);
    return p.out;
  }
  void Turn(const LayerWorld& w, const Rows& heads) {
    Execute(RotaryParams{w.rows, w.map, heads, w.shape.head_dim, w.layer.rotary});
  }

  // q, and the KV cache written, one operation at a time.
  Rows EagerQkv(const LayerWorld& w, const Rows& normed) {
    const Rows q = Product(w, normed, w.layer.q, w.layer.q_bias);
    const Rows k = Product(w, normed, w.layer.k, w.layer.k_bias);
    const Rows v = Product(w, normed, w.layer.v, w.layer.v_bias);
    Turn(w, q);
    Turn(w, k);
    Execute(WriteKvParams{w.rows, w.map, w.world.lanes(), k, v, w.layer.kv});
    return q;
  }

  // Adds in * weight^T + bias to a copy of the hidden rows.
  Rows EagerResidual(const LayerWorld& w, const Rows& in, const Matrix& weight, const float* bias) {
    const Rows hidden = Upload(w.hidden_values, w.shape.hidden);
    Execute(AddParams{w.rows, hidden, Product(w, in, weight, bias)});
    return hidden;
  }
};

TEST_P(FusedTest, NormQkv) {
  OnShapes([&](const LayerWorld& w) {
    const Floats clean = w.cache.Download(memory());
    const Rows hidden = Upload(w.hidden_values, w.shape.hidden);
    NormQkvParams p;
    p.rows = w.rows;
    p.map = w.map;
    p.lanes = w.world.lanes();
    p.layer = w.Ref();
    p.hidden = hidden;
    p.normed = Empty(w, w.shape.hidden);
    p.q_out = Empty(w, w.ref.q_rows);
    Execute(p);
    const Floats fused_kv = w.cache.Download(memory());
    EXPECT_NE(fused_kv, clean);
    const Rows q = EagerQkv(w, Norm(w, hidden, w.layer.attention_norm));
    ExpectSame(Get(w, p.q_out), Get(w, q));
    ExpectSame(fused_kv, w.cache.Download(memory()));
    EXPECT_EQ(Get(w, hidden), w.hidden_values);
  });
}

TEST_P(FusedTest, Qkv) {
  OnShapes([&](const LayerWorld& w) {
    QkvParams p;
    p.rows = w.rows;
    p.map = w.map;
    p.lanes = w.world.lanes();
    p.layer = w.Ref();
    p.layer.counter = memory().Upload(std::vector<int32_t>{1});
    p.layer.index = 0;
    p.normed = Upload(w.hidden_values, w.shape.hidden);
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
    p.hidden = Upload(w.hidden_values, w.shape.hidden);
    Execute(p);
    ExpectSame(Get(w, p.hidden), Get(w, EagerResidual(w, p.attention, w.layer.o, w.layer.o_bias)));
  });
}

TEST_P(FusedTest, NormGateUp) {
  OnShapes([&](const LayerWorld& w) {
    NormGateUpParams p;
    p.rows = w.rows;
    p.layer = w.Ref();
    p.hidden = Upload(w.hidden_values, w.shape.hidden);
    p.normed = Empty(w, w.shape.hidden);
    p.out = Empty(w, w.shape.intermediate);
    Execute(p);
    const Rows normed = Norm(w, p.hidden, w.layer.mlp_norm);
    GatedActivationParams gated;
    gated.rows = w.rows;
    gated.gate = Product(w, normed, w.layer.gate, w.layer.gate_bias);
    gated.up = Product(w, normed, w.layer.up, w.layer.up_bias);
    gated.out = gated.gate;
    gated.activation = w.layer.activation;
    Execute(gated);
    ExpectSame(Get(w, p.out), Get(w, gated.out));
    EXPECT_EQ(Get(w, p.hidden), w.hidden_values);
  });
}

TEST_P(FusedTest, DownResidualAdvancesTheCounter) {
  OnShapes([&](const LayerWorld& w) {
    int32_t* counter = memory().Upload(std::vector<int32_t>{1});
    DownResidualParams p;
    p.rows = w.rows;
    p.layer = w.Ref();
    p.layer.counter = counter;
    p.layer.index = 0;
    p.in = Upload(w.mlp_values, w.shape.intermediate);
    p.hidden = Upload(w.hidden_values, w.shape.hidden);
    p.advance = counter;
    Execute(p);
    ExpectSame(Get(w, p.hidden), Get(w, EagerResidual(w, p.in, w.layer.down, w.layer.down_bias)));
    EXPECT_EQ(memory().Download(counter, 1)[0], 2);
  });
}

TEST_P(FusedTest, DownResidualWithoutACounter) {
  LayerWorld w(memory(), LayerShape(), 2, activations(), dtype());
  DownResidualParams p;
  p.rows = w.rows;
  p.layer = w.Ref();
  p.in = Upload(w.mlp_values, w.shape.intermediate);
  p.hidden = Upload(w.hidden_values, w.shape.hidden);
  Execute(p);
  ExpectSame(Get(w, p.hidden), Get(w, EagerResidual(w, p.in, w.layer.down, w.layer.down_bias)));
}

TEST_P(FusedTest, DownNorm) {
  OnShapes([&](const LayerWorld& w) {
    DownNormParams p;
    p.rows = w.rows;
    p.layer = w.Ref();
    p.in = Upload(w.mlp_values, w.shape.intermediate);
    p.hidden = Upload(w.hidden_values, w.shape.hidden);
    p.next_norm = w.next_norm;
    p.normed = Empty(w, w.shape.hidden);
    Execute(p);
    const Rows hidden = EagerResidual(w, p.in, w.layer.down, w.layer.down_bias);
    ExpectSame(Get(w, p.hidden), Get(w, hidden));
    ExpectSame(Get(w, p.normed), Get(w, Norm(w, hidden, w.next_norm)));
  });
}

SIROCCO_ON_ALL_TYPED_DEVICES(FusedTest);

}  // namespace
}  // namespace sirocco
