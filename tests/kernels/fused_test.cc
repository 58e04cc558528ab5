// Each fused operation against the sequence of operations that it stands for: bit by bit where the
// device promises that, else within the tolerance of its activations.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/fused_world.h"
#include "tests/kernels/ops_test.h"
#include "tests/kernels/reference.h"

namespace sirocco {
namespace {

using Floats = std::vector<float>;

class FusedTest : public TypedOpsTest {
 protected:
  // Of weights in blocks, whole blocks of inputs, and heads that are no whole groups of rows.
  LayerShape Shape(bool post_norms = false) const {
    LayerShape shape{.post_norms = post_norms};
    if (InBlocks(dtype())) {
      shape.hidden = 64;
      shape.heads = 4;
      shape.head_dim = 24;
      shape.intermediate = 96;
    }
    return shape;
  }

  // Runs `check` over shapes: even ones, odd ones with partial rotation, and with all norms a layer
  // can have; one row and many. And over a deep one, whose sums a device may make in parts.
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
    const LayerShape norms{.hidden = 80,
                           .heads = 4,
                           .kv_heads = 1,
                           .head_dim = 32,
                           .rotary_dim = 32,
                           .intermediate = 96,
                           .biases = false,
                           .head_norms = true,
                           .post_norms = true,
                           .activation = Activation::kGeluTanh};
    LayerShape norms_in_blocks = norms;
    norms_in_blocks.hidden = 96;
    LayerShape odd_norms = odd;
    odd_norms.biases = odd_norms.head_norms = odd_norms.post_norms = true;
    const LayerShape deep{.hidden = 1032,
                          .heads = 2,
                          .kv_heads = 1,
                          .head_dim = 128,
                          .rotary_dim = 96,
                          .intermediate = 1040,
                          .head_norms = true,
                          .post_norms = true};
    const std::vector<LayerShape> shapes =
        InBlocks(dtype()) ? std::vector<LayerShape>{Shape(), norms_in_blocks}
                          : std::vector<LayerShape>{Shape(), odd, norms, odd_norms, deep};
    for (const LayerShape& shape : shapes) {
      for (const int32_t rows : {1, 3, 37, 150}) {
        if (shape.hidden == deep.hidden && rows == 150) continue;  // nothing new, and slow
        SCOPED_TRACE(::testing::Message() << "hidden " << shape.hidden << ", rows " << rows
                                          << (shape.post_norms ? ", with all norms" : ""));
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
  Rows Hidden(const LayerWorld& w) { return memory().Residual(w.hidden_values, w.shape.hidden); }
  Rows Delta(const LayerWorld& w) { return memory().Residual(w.delta_values, w.shape.hidden); }
  Rows EmptyResidual(const LayerWorld& w) { return memory().EmptyResidual(w.rows, w.shape.hidden); }
  Floats Get(const LayerWorld& w, const Rows& rows) { return memory().Download(rows, w.rows); }

  void NormTo(const LayerWorld& w, const Rows& in, const float* weight, const Rows& out) {
    Execute(RmsNormParams{w.rows, in, weight, w.layer.norm_epsilon, out});
  }
  Rows Norm(const LayerWorld& w, const Rows& in, const float* weight) {
    const Rows out = Empty(w, in.width);
    NormTo(w, in, weight, out);
    return out;
  }
  Rows Product(const LayerWorld& w, const Rows& in, const Matrix& weight, const float* bias,
               const Rows& out) {
    Execute(MatMulParams{w.rows, in, weight, bias, out});
    return out;
  }
  Rows Product(const LayerWorld& w, const Rows& in, const Matrix& weight, const float* bias) {
    return Product(w, in, weight, bias, Empty(w, weight.rows));
  }
  void NormHeads(const LayerWorld& w, const Rows& heads, const float* weight) {
    if (weight == nullptr) return;
    Execute(HeadNormParams{w.rows, heads, w.shape.head_dim, weight, w.layer.norm_epsilon});
  }
  void Turn(const LayerWorld& w, const Rows& heads) {
    Execute(RotaryParams{w.rows, w.map, heads, w.shape.head_dim, w.layer.rotary});
  }

  // q, and the KV cache written, one operation at a time.
  Rows EagerQkv(const LayerWorld& w, const Rows& normed) {
    const Rows q = Product(w, normed, w.layer.q, w.layer.q_bias);
    const Rows k = Product(w, normed, w.layer.k, w.layer.k_bias);
    const Rows v = Product(w, normed, w.layer.v, w.layer.v_bias);
    NormHeads(w, q, w.layer.q_norm);
    NormHeads(w, k, w.layer.k_norm);
    Turn(w, q);
    Turn(w, k);
    Execute(WriteKvParams{w.rows, w.map, w.world.lanes(), k, v, w.layer.kv});
    return q;
  }

  // A copy of the hidden rows with `delta` added, which goes through `post_norm` before if there is
  // one.
  Rows EagerAdd(const LayerWorld& w, const Rows& delta, const float* post_norm) {
    const Rows hidden = Hidden(w);
    if (post_norm != nullptr) NormTo(w, delta, post_norm, delta);
    Execute(AddParams{w.rows, hidden, delta});
    return hidden;
  }

  // in * weight^T + bias as a delta of the residual stream.
  Rows EagerDelta(const LayerWorld& w, const Rows& in, const Matrix& weight, const float* bias) {
    return Product(w, in, weight, bias, EmptyResidual(w));
  }

  NormQkvParams NormQkv(const LayerWorld& w) {
    NormQkvParams p;
    p.rows = w.rows;
    p.map = w.map;
    p.lanes = w.world.lanes();
    p.layer = w.Ref();
    p.hidden = Hidden(w);
    p.normed = Empty(w, w.shape.hidden);
    p.q_out = Empty(w, w.ref.q_rows);
    if (w.shape.post_norms) {
      p.delta = Delta(w);
      p.sum = EmptyResidual(w);
    }
    return p;
  }

  // The layer's table with one field changed.
  template <typename Change>
  LayerRef Changed(const LayerWorld& w, const Change& change) {
    LayerParams layer = w.layer;
    change(layer);
    LayerRef ref = w.Ref();
    ref.table = memory().Upload(std::vector<LayerParams>{LayerParams(), layer});
    return ref;
  }
};

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
    p.layer.counter = memory().Upload(std::vector<int32_t>{1});
    p.layer.index = 0;
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
    p.layer = w.Ref();
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
