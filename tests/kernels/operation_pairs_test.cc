// Two operations as one against the two in turn, on the same device.
#include "kernels/operation_pairs.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/kernels/fused_ops_test.h"

namespace sirocco {
namespace {

using Floats = std::vector<float>;

class OperationPairsTest : public FusedOpsTest {
 protected:
  // What a pair leaves: the second product, and the stream.
  struct Left {
    Floats out, stream;
  };

  void ExpectPair(const Left& pair, const Left& again, const Left& in_turn) {
    EXPECT_EQ(pair.out, again.out);
    EXPECT_EQ(pair.stream, again.stream);
    if (GetParam().device.invariant) {
      EXPECT_EQ(pair.out, in_turn.out);
      EXPECT_EQ(pair.stream, in_turn.stream);
      return;
    }
    // Rows are rounded before they are divided, not after.
    ExpectNear(pair.out, reference::Wide(in_turn.out), 2 * tolerance());
    ExpectNear(pair.stream, reference::Wide(in_turn.stream), tolerance());
  }

  Left OutputGateUp(const LayerWorld& w, bool in_turn) {
    const bool post = w.layer.attention_post_norm != nullptr;
    OutputGateUpParams p;
    p.rows = w.rows;
    p.output.layer = p.gate_up.layer = w.Ref();
    p.output.attention = Upload(w.attention_values, w.ref.q_rows);
    p.output.hidden = p.gate_up.hidden = Hidden(w);
    if (post) {
      p.output.delta = p.gate_up.delta = EmptyResidual(w);
      p.gate_up.sum = EmptyResidual(w);
    }
    p.gate_up.normed = Empty(w, w.shape.hidden);
    p.gate_up.out = Empty(w, w.shape.intermediate);
    Do(p, in_turn);
    return {Get(w, p.gate_up.out), Get(w, post ? p.gate_up.sum : p.gate_up.hidden)};
  }
  Left DownQkv(const LayerWorld& w, bool in_turn) {
    DownQkvParams p;
    p.rows = w.rows;
    p.down.layer = p.qkv.layer = w.Ref();
    p.down.in = Upload(w.mlp_values, w.shape.intermediate);
    p.down.hidden = Hidden(w);
    if (w.layer.mlp_post_norm != nullptr) p.down.delta = EmptyResidual(w);
    p.down.next_norm = w.next_norm;
    p.down.normed = p.qkv.normed = Empty(w, w.shape.hidden);
    p.qkv.qkv = EmptyQkv(w);
    Do(p, in_turn);
    return {Get(w, p.qkv.qkv), Get(w, p.down.hidden)};
  }

 private:
  template <typename Pair>
  void Do(const Pair& p, bool in_turn) {
    if (in_turn) {
      Execute(FirstOf(p));
      Execute(SecondOf(p));
    } else {
      Execute(p);
    }
  }
};

TEST_P(OperationPairsTest, OutputGateUpIsTheTwoInTurn) {
  OnShapes([&](const LayerWorld& w) {
    ExpectPair(OutputGateUp(w, false), OutputGateUp(w, false), OutputGateUp(w, true));
  });
}

TEST_P(OperationPairsTest, DownQkvIsTheTwoInTurn) {
  OnShapes([&](const LayerWorld& w) {
    ExpectPair(DownQkv(w, false), DownQkv(w, false), DownQkv(w, true));
  });
}

TEST_P(OperationPairsTest, ABatchInvariantDeviceAsksForNone) {
  if (!GetParam().device.batch_invariant) GTEST_SKIP() << "it may";
  EXPECT_EQ(device().paired_rows(), 0);
}

// Refused as either operation alone.
TEST_P(OperationPairsTest, EitherIsChecked) {
  const LayerWorld w(memory(), Shape(), 3, activations(), dtype());
  OutputGateUpParams p;
  p.rows = w.rows;
  p.output.layer = p.gate_up.layer = w.Ref();
  p.output.hidden = p.gate_up.hidden = Hidden(w);
  p.gate_up.normed = Empty(w, w.shape.hidden);
  p.gate_up.out = Empty(w, w.shape.intermediate);
  const absl::Status first = ops().Run(p);
  EXPECT_EQ(first.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(first.message().find("output_residual"), std::string::npos) << first;
  p.output.attention = Upload(w.attention_values, w.ref.q_rows);
  p.gate_up.out = Rows();
  const absl::Status second = ops().Run(p);
  EXPECT_EQ(second.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(second.message().find("norm_gate_up"), std::string::npos) << second;
}

SIROCCO_ON_ALL_TYPED_DEVICES(OperationPairsTest);

}  // namespace
}  // namespace sirocco
