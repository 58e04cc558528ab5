// Two operations as one against the two in turn, on the same device.
#include "kernels/operation_pairs.h"

#include <gtest/gtest.h>

#include <memory>
#include <tuple>
#include <utility>
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
    if (GetParam().device.batch_invariant) {
      EXPECT_EQ(pair.out, in_turn.out);
      EXPECT_EQ(pair.stream, in_turn.stream);
      return;
    }
    // Rows are rounded before they are divided, not after.
    ExpectNear(pair.out, reference::Wide(in_turn.out), 2 * tolerance());
    ExpectNear(pair.stream, reference::Wide(in_turn.stream), tolerance());
  }

  // `p` prepared for all of the world's rows and recorded for fewer against `in_turn`.
  // outputs(pair): what the second product and the stream are left in.
  template <typename Pair, typename Outputs>
  void ExpectManyRows(const LayerWorld& w, Pair p, const Pair& in_turn, const Outputs& outputs) {
    ASSERT_TRUE(device().BeginPrepare().ok());
    ASSERT_TRUE(ops().Run(p).ok());
    ASSERT_TRUE(device().EndPrepare().ok());
    Execute(FirstOf(in_turn));
    Execute(SecondOf(in_turn));
    const auto left = [&](const Pair& pair, int32_t rows) {
      const auto [out, stream] = outputs(pair);
      Left all = {Get(w, out), Get(w, stream)};
      all.out.resize(static_cast<size_t>(rows) * out.width);
      all.stream.resize(static_cast<size_t>(rows) * stream.width);
      return all;
    };
    const Rows hidden = FirstOf(p).hidden;
    const size_t bytes = w.hidden_values.size() * sizeof(float);
    for (const int32_t rows : {200, 192, 150, 128, 65, 64, 33}) {
      SCOPED_TRACE(rows);
      p.rows = rows;
      ASSERT_TRUE(device().BeginRecord().ok());
      ASSERT_TRUE(ops().Run(p).ok());
      const absl::StatusOr<std::unique_ptr<Recording>> recording = device().EndRecord();
      ASSERT_TRUE(recording.ok()) << recording.status();
      const auto outcome = [&](const auto& run) {
        EXPECT_TRUE(device().CopyToDevice(hidden.data, w.hidden_values.data(), bytes).ok());
        run();
        EXPECT_TRUE(device().Synchronize().ok());
        return left(p, rows);
      };
      const Left replayed = outcome([&] { EXPECT_TRUE(device().Launch(**recording).ok()); });
      const Left issued = outcome([&] { EXPECT_TRUE(ops().Run(p).ok()); });
      ExpectPair(issued, replayed, left(in_turn, rows));
    }
  }

  OutputGateUpParams OutputGateUpOf(const LayerWorld& w) {
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
    return p;
  }
  Left OutputGateUp(const LayerWorld& w, bool in_turn) {
    const OutputGateUpParams p = OutputGateUpOf(w);
    Do(p, in_turn);
    return {Get(w, p.gate_up.out),
            Get(w, p.output.delta.data != nullptr ? p.gate_up.sum : p.gate_up.hidden)};
  }
  DownQkvParams DownQkvOf(const LayerWorld& w) {
    DownQkvParams p;
    p.rows = w.rows;
    p.down.layer = p.qkv.layer = w.Ref();
    p.down.in = Upload(w.mlp_values, w.shape.intermediate);
    p.down.hidden = Hidden(w);
    if (w.layer.mlp_post_norm != nullptr) p.down.delta = EmptyResidual(w);
    p.down.next_norm = w.next_norm;
    p.down.normed = p.qkv.normed = Empty(w, w.shape.hidden);
    p.qkv.qkv = EmptyQkv(w);
    return p;
  }
  Left DownQkv(const LayerWorld& w, bool in_turn) {
    const DownQkvParams p = DownQkvOf(w);
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

// Rows that a device may make of its own way: by products that end in norms, or without norms
// between them; prepared for most rows, recorded for fewer. Few outputs of many inputs; as many as
// there may be with norms, of few; more; and, for who makes more of pairs, as many weights as
// decide it beyond 128 rows, and where panels are for few.
TEST_P(OperationPairsTest, ManyRowsAreTheTwoInTurn) {
  if (InBlocks(dtype())) GTEST_SKIP() << "no products of so many rows";
  std::vector<LayerShape> shapes;
  for (const auto& [hidden, head_dim, post_norms] :
       {std::tuple{136, 256, false}, std::tuple{136, 66, true}, std::tuple{1152, 34, true},
        std::tuple{1160, 34, false}}) {
    shapes.push_back(LayerShape{.hidden = hidden,
                                .heads = 4,
                                .kv_heads = 1,
                                .head_dim = head_dim,
                                .intermediate = 264,
                                .biases = !post_norms,
                                .post_norms = post_norms});
  }
  if (device().paired_rows() > 0 && dtype() == DType::kBFloat16) {
    shapes.push_back(LayerShape{
        .hidden = 4104, .heads = 32, .kv_heads = 1, .head_dim = 128, .intermediate = 2056});
  }
  for (LayerShape& shape : shapes) {
    SCOPED_TRACE(shape.hidden);
    shape.on_host = shape.adjacent = true;
    const LayerWorld w(memory(), shape, 200, activations(), dtype());
    ExpectManyRows(w, OutputGateUpOf(w), OutputGateUpOf(w), [&](const OutputGateUpParams& p) {
      return std::pair{p.gate_up.out, shape.post_norms ? p.gate_up.sum : p.gate_up.hidden};
    });
    ExpectManyRows(w, DownQkvOf(w), DownQkvOf(w), [](const DownQkvParams& p) {
      return std::pair{p.qkv.qkv, p.down.hidden};
    });
  }
}

TEST_P(OperationPairsTest, ABatchInvariantDeviceAsksForNone) {
  if (!GetParam().device.batch_invariant) GTEST_SKIP() << "it may";
  EXPECT_EQ(device().paired_rows(), 0);
}

// What was prepared with many rows, which may be made another way, is there for fewer.
TEST_P(OperationPairsTest, PreparedWithManyRowsFewerAllocateNothing) {
  for (const bool post_norms : {false, true}) {
    LayerShape shape = Shape(post_norms);
    shape.on_host = shape.adjacent = true;
    const LayerWorld w(memory(), shape, 70, activations(), dtype());
    OutputGateUpParams output_gate_up = OutputGateUpOf(w);
    DownQkvParams down_qkv = DownQkvOf(w);
    ASSERT_TRUE(device().BeginPrepare().ok());
    ASSERT_TRUE(ops().Run(output_gate_up).ok());
    ASSERT_TRUE(ops().Run(down_qkv).ok());
    ASSERT_TRUE(device().EndPrepare().ok());
    const uint64_t allocations = device().counters().allocations;
    for (int32_t rows = 70; rows > 0; --rows) {
      output_gate_up.rows = down_qkv.rows = rows;
      ASSERT_TRUE(device().BeginRecord().ok());
      EXPECT_EQ(ops().Run(output_gate_up), absl::OkStatus()) << rows << " rows";
      EXPECT_EQ(ops().Run(down_qkv), absl::OkStatus()) << rows << " rows";
      const absl::StatusOr<std::unique_ptr<Recording>> recording = device().EndRecord();
      ASSERT_TRUE(recording.ok()) << recording.status();
      ASSERT_TRUE(device().Launch(**recording).ok());
      ASSERT_TRUE(device().Synchronize().ok());
    }
    EXPECT_EQ(device().counters().allocations, allocations);
  }
}

// For the table of kernels: with so many rows and post-norms the two are made in turn.
TEST_P(OperationPairsTest, ManyRowsHaveTheProductsOfBoth) {
  LayerShape shape = Shape(/*post_norms=*/true);
  shape.on_host = shape.adjacent = true;
  const LayerWorld w(memory(), shape, 70, activations(), dtype());
  const auto expect = [&](const auto& pair) {
    const auto count = [&](const auto& params) {
      Execute(params);
      return ops().ProductsOf(params).size();
    };
    const size_t of_both = count(FirstOf(pair)) + count(SecondOf(pair));
    EXPECT_EQ(count(pair), of_both);
  };
  expect(OutputGateUpOf(w));
  expect(DownQkvOf(w));
}

// Rows of the two that do not belong together.
TEST_P(OperationPairsTest, TheSecondReadsWhatTheFirstWrites) {
  const LayerWorld w(memory(), Shape(), 3, activations(), dtype());
  OutputGateUpParams output_gate_up = OutputGateUpOf(w);
  output_gate_up.gate_up.hidden = Hidden(w);
  EXPECT_EQ(ops().Run(output_gate_up),
            absl::InvalidArgumentError("output_gate_up: the two have other hidden rows"));
  DownQkvParams down_qkv = DownQkvOf(w);
  down_qkv.qkv.normed = Empty(w, w.shape.hidden);
  EXPECT_EQ(ops().Run(down_qkv),
            absl::InvalidArgumentError("down_qkv: the two have other normed rows"));
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
