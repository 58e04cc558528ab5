// Fused operations of many rows of a layer that the host knows: a device may have their products
// made by a library. Weights in blocks are none of it.
#include <gtest/gtest.h>

#include <tuple>
#include <utility>
#include <vector>

#include "tests/kernels/fused_ops_test.h"

namespace sirocco {
namespace {

using Floats = std::vector<float>;

class FusedLibraryTest : public FusedOpsTest {
 protected:
  // A recording of the operation leaves what issuing it does. Returns that: the stream, and normed.
  std::vector<Floats> ExpectReplayedAsIssued(const LayerWorld& w, const DownNormParams& p) {
    EXPECT_TRUE(device().BeginRecord().ok());
    EXPECT_TRUE(ops().Run(p).ok());
    const auto recording = device().EndRecord();
    EXPECT_TRUE(recording.ok()) << recording.status();
    if (!recording.ok()) return {};
    const auto outcome = [&](const auto& run) {
      const size_t bytes = w.hidden_values.size() * sizeof(float);
      EXPECT_TRUE(device().CopyToDevice(p.hidden.data, w.hidden_values.data(), bytes).ok());
      run();
      EXPECT_TRUE(device().Synchronize().ok());
      std::vector<Floats> out = {Get(w, p.hidden), Get(w, p.normed)};
      for (Floats& values : out) values.resize(static_cast<size_t>(p.rows) * p.hidden.width);
      return out;
    };
    const auto issued = outcome([&] { EXPECT_TRUE(ops().Run(p).ok()); });
    const auto replayed = outcome([&] { EXPECT_TRUE(device().Launch(**recording).ok()); });
    EXPECT_EQ(replayed, issued) << p.rows << " rows";
    return issued;
  }
};

// A layer's operations as a step's plan has them: prepared for most rows, recorded for fewer.
TEST_P(FusedLibraryTest, RecordingsOfManyRowsDoWhatIssuingDoes) {
  for (const bool post_norms : {false, true}) {
    const LayerWorld w(memory(),
                       LayerShape{.hidden = 64,
                                  .heads = 4,
                                  .head_dim = 16,
                                  .rotary_dim = 16,
                                  .intermediate = 96,
                                  .post_norms = post_norms,
                                  .on_host = true,
                                  .adjacent = true},
                       40, activations(), dtype());
    NormQkvParams qkv = NormQkv(w);
    QkvAttentionParams attention = QkvAttention(w, qkv.qkv);
    OutputResidualParams output{w.rows, w.Ref(), attention.out, qkv.hidden, qkv.delta};
    NormGateUpParams gate_up{
        w.rows,    w.Ref(), qkv.hidden, qkv.normed, Empty(w, w.shape.intermediate),
        qkv.delta, qkv.sum};
    const Rows stream = post_norms ? qkv.sum : qkv.hidden;
    DownNormParams down{w.rows, w.Ref(), gate_up.out, stream, w.next_norm, qkv.normed, qkv.delta};
    const auto issue = [&](int32_t rows) {
      qkv.rows = attention.rows = output.rows = gate_up.rows = down.rows = rows;
      absl::Status status = ops().Run(qkv);
      if (status.ok()) status = ops().Run(attention);
      if (status.ok()) status = ops().Run(output);
      if (status.ok()) status = ops().Run(gate_up);
      if (status.ok()) status = ops().Run(down);
      ASSERT_TRUE(status.ok()) << status;
    };
    // All that a step leaves behind, from a stream that is as it was.
    const auto outcome = [&](const auto& run) {
      const size_t bytes = w.hidden_values.size() * sizeof(float);
      EXPECT_TRUE(device().CopyToDevice(qkv.hidden.data, w.hidden_values.data(), bytes).ok());
      if (post_norms) {
        EXPECT_TRUE(device().CopyToDevice(qkv.delta.data, w.delta_values.data(), bytes).ok());
      }
      EXPECT_TRUE(device().Synchronize().ok());
      run();
      EXPECT_TRUE(device().Synchronize().ok());
      return std::vector{Get(w, attention.out), w.cache.Download(memory()), Get(w, stream),
                         Get(w, gate_up.out), Get(w, qkv.normed)};
    };
    ASSERT_TRUE(device().BeginPrepare().ok());
    issue(w.rows);
    ASSERT_TRUE(device().EndPrepare().ok());
    for (const int32_t rows : {40, 17, 8, 4}) {
      ASSERT_TRUE(device().BeginRecord().ok());
      issue(rows);
      const auto recording = device().EndRecord();
      ASSERT_TRUE(recording.ok()) << recording.status();
      EXPECT_EQ((*recording)->size(), 5);
      const auto issued = outcome([&] { issue(rows); });
      const auto replayed = outcome([&] { EXPECT_TRUE(device().Launch(**recording).ok()); });
      EXPECT_EQ(replayed, issued) << rows << " rows";
    }
  }
}

// A product of many columns for few outputs, which a device may cut into parts; prepared for most
// rows, recorded for fewer.
TEST_P(FusedLibraryTest, DownNormOfManyColumns) {
  for (const auto& [post_norms, intermediate] :
       {std::pair{false, 1024}, std::pair{true, 1024}, std::pair{true, 7176}}) {
    const LayerWorld w(
        memory(),
        LayerShape{
            .hidden = 64, .intermediate = intermediate, .post_norms = post_norms, .on_host = true},
        40, activations(), dtype());
    DownNormParams p = DownNorm(w);
    ASSERT_TRUE(device().BeginPrepare().ok());
    ASSERT_TRUE(ops().Run(p).ok());
    ASSERT_TRUE(device().EndPrepare().ok());
    ExpectDownNorm(w, p);
    for (const int32_t rows : {17, 16, 5, 4}) {
      p.rows = rows;
      // One step after the other, as graphs are replayed.
      ExpectReplayedAsIssued(w, p);
    }
  }
}

// Gate and up of so many rows that a device may multiply them in tiles of a hundred rows and more;
// rows and outputs that are no multiples of a tile, prepared for most rows, recorded for fewer.
TEST_P(FusedLibraryTest, NormGateUpOfManyRows) {
  for (const bool adjacent : {false, true}) {
    // The last four so many that other tiles need fewer rounds.
    for (const auto& [intermediate, activation] :
         {std::pair{96, Activation::kSilu}, std::pair{264, Activation::kGeluTanh},
          std::pair{8448, Activation::kSilu}, std::pair{8512, Activation::kGeluTanh},
          std::pair{9520, Activation::kSilu}, std::pair{10576, Activation::kGeluTanh}}) {
      if (intermediate > 264 && !adjacent) continue;
      const LayerWorld w(memory(),
                         LayerShape{.hidden = 136,
                                    .intermediate = intermediate,
                                    .activation = activation,
                                    .on_host = true,
                                    .adjacent = adjacent},
                         300, activations(), dtype());
      NormGateUpParams p;
      p.rows = w.rows;
      p.layer = w.Ref();
      p.hidden = Hidden(w);
      p.normed = Empty(w, w.shape.hidden);
      p.out = Empty(w, w.shape.intermediate);
      ASSERT_TRUE(device().BeginPrepare().ok());
      ASSERT_TRUE(ops().Run(p).ok());
      ASSERT_TRUE(device().EndPrepare().ok());
      const Rows normed = Norm(w, p.hidden, w.layer.mlp_norm);
      GatedActivationParams gated;
      gated.rows = w.rows;
      gated.gate = Product(w, normed, w.layer.gate, w.layer.gate_bias);
      gated.up = Product(w, normed, w.layer.up, w.layer.up_bias);
      gated.out = gated.gate;
      gated.activation = w.layer.activation;
      Execute(gated);
      const std::vector<float> want = Get(w, gated.out);
      for (const int32_t rows : {300, 256, 200, 129, 128, 65, 64, 4}) {
        p.rows = rows;
        ASSERT_TRUE(device().BeginRecord().ok());
        ASSERT_TRUE(ops().Run(p).ok());
        const auto recording = device().EndRecord();
        ASSERT_TRUE(recording.ok()) << recording.status();
        const auto outcome = [&](const auto& run) {
          run();
          EXPECT_TRUE(device().Synchronize().ok());
          std::vector<float> out = Get(w, p.out);
          out.resize(static_cast<size_t>(rows) * w.shape.intermediate);
          return out;
        };
        const std::vector<float> issued = outcome([&] { EXPECT_TRUE(ops().Run(p).ok()); });
        const std::vector<float> replayed =
            outcome([&] { EXPECT_TRUE(device().Launch(**recording).ok()); });
        EXPECT_EQ(replayed, issued) << rows << " rows";
        ExpectSame(issued, {want.begin(), want.begin() + static_cast<int64_t>(issued.size())});
      }
    }
  }
}

// Down of so many rows that a device may multiply it in tiles of a hundred rows and more, in parts
// that the norms add up; rows, outputs and inputs that are no multiples of a tile, prepared for
// most rows, recorded for fewer. Products of few weights are in parts from 65 to 256 rows.
TEST_P(FusedLibraryTest, DownNormOfManyRows) {
  for (const bool post_norms : {false, true}) {
    for (const auto& [hidden, intermediate, most] :
         {std::tuple{136, 264, 300}, std::tuple{1160, 264, 300}, std::tuple{136, 6152, 260},
          std::tuple{136, 264, 128}}) {
      LayerShape shape{.hidden = hidden,
                       .intermediate = intermediate,
                       .post_norms = post_norms,
                       .on_host = true};
      const LayerWorld w(memory(), shape, most, activations(), dtype());
      DownNormParams p = DownNorm(w);
      ASSERT_TRUE(device().BeginPrepare().ok());
      ASSERT_TRUE(ops().Run(p).ok());
      ASSERT_TRUE(device().EndPrepare().ok());
      const uint64_t allocations = device().counters().allocations;
      const Rows stream =
          EagerAdd(w, EagerDelta(w, p.in, w.layer.down, w.layer.down_bias), w.layer.mlp_post_norm);
      const std::vector<Floats> want = {Get(w, stream), Get(w, Norm(w, stream, w.next_norm))};
      const uint64_t of_test = device().counters().allocations - allocations;
      for (const int32_t rows : {300, 256, 200, 192, 129, 128, 65, 64, 4}) {
        if (rows > most) continue;
        p.rows = rows;
        const std::vector<Floats> issued = ExpectReplayedAsIssued(w, p);
        ASSERT_EQ(issued.size(), want.size());
        for (size_t i = 0; i < want.size(); ++i) {
          ExpectSame(issued[i],
                     {want[i].begin(), want[i].begin() + static_cast<int64_t>(issued[i].size())});
        }
      }
      EXPECT_EQ(device().counters().allocations, allocations + of_test);
    }
  }
}

// Matrices that follow each other in memory are one product, others none; of so many rows that no
// device has kernels of its own for them, of a layer that the host knows.
TEST_P(FusedLibraryTest, ProductsOfAFusedOperation) {
  const bool has_library = device().backend() == "cuda" && !GetParam().device.batch_invariant;
  for (const bool adjacent : {false, true}) {
    const LayerWorld w(memory(), LayerShape{.on_host = true, .adjacent = adjacent}, 70,
                       activations(), dtype());
    NormQkvParams p = NormQkv(w);
    Execute(p);
    const std::vector<MatMulParams> products = ops().ProductsOf(p);
    ASSERT_EQ(products.size(), has_library && adjacent ? 1u : 0u);
    int32_t outputs = 0;
    for (const MatMulParams& product : products) {
      EXPECT_EQ(product.rows, 70);
      EXPECT_EQ(product.in.data, p.normed.data);
      EXPECT_EQ(product.weight.cols, w.shape.hidden);
      EXPECT_EQ(product.out.width, product.weight.rows);
      outputs += product.weight.rows;
    }
    if (!products.empty()) {
      EXPECT_EQ(outputs, w.ref.q_rows + 2 * w.ref.kv_rows);
    }
    p.rows = 4;
    EXPECT_TRUE(ops().ProductsOf(p).empty());
    p.rows = 70;
    p.layer.host = nullptr;
    EXPECT_TRUE(ops().ProductsOf(p).empty());
  }
}

TEST_P(FusedLibraryTest, ALayerOnTheHostIsNoCountersLayer) {
  const LayerWorld w(memory(), LayerShape{.on_host = true}, 9, activations(), dtype());
  NormQkvParams p = NormQkv(w);
  p.layer.counter = memory().Upload(std::vector<int32_t>{1});
  EXPECT_EQ(ops().Run(p).code(), absl::StatusCode::kInvalidArgument);
}

SIROCCO_ON_ALL_TYPED_DEVICES(FusedLibraryTest);

}  // namespace
}  // namespace sirocco
