// All layers as one operation, and each as one, against their operations one after the other, on
// the same device, for the shapes that it offers; and that it refuses, by name, what it does not
// offer.
#include "kernels/decoder_layers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/kernels/fused_ops_test.h"

namespace sirocco {
namespace {

using ::testing::HasSubstr;
using Floats = std::vector<float>;

// Shapes of which a device may have a kernel: gemma3-1b's and llama3.2-1b's.
const LayerShape kOffered[] = {
    {.hidden = 1152,
     .heads = 4,
     .kv_heads = 1,
     .head_dim = 256,
     .rotary_dim = 256,
     .intermediate = 6912,
     .biases = false,
     .head_norms = true,
     .post_norms = true,
     .activation = Activation::kGeluTanh},
    {.hidden = 2048,
     .heads = 32,
     .kv_heads = 8,
     .head_dim = 64,
     .rotary_dim = 64,
     .intermediate = 8192,
     .biases = false},
};

class DecoderLayersTest : public FusedOpsTest {
 protected:
  DecoderLayersOffer OfferOf(const LayerShape& shape) {
    DecoderLayersShape of;
    of.hidden = shape.hidden;
    of.heads = shape.heads;
    of.kv_heads = shape.kv_heads;
    of.head_dim = shape.head_dim;
    of.intermediate = shape.intermediate;
    of.heads_turn_whole = shape.rotary_dim == shape.head_dim;
    of.head_norms = shape.head_norms;
    of.post_norms = shape.post_norms;
    of.plain = shape.pre_norms && !shape.biases && !shape.whole_norms;
    of.weights = dtype();
    of.activations = activations();
    of.kv = kv_dtype();
    return device().OfferDecoderLayers(of);
  }

  // Two layers in a table: w's, and `second`'s, each with its own cache.
  LayerRef TableOf(const LayerWorld& w, const LayerWorld& second) {
    std::vector<LayerParams> table = {w.layer, second.layer};
    table[0].input_post_norm = nullptr;
    table[1].input_post_norm = w.layer.mlp_post_norm;
    LayerRef ref = w.ref;
    ref.table = memory().Upload(table);
    ref.index = 0;
    table_ = table;
    return ref;
  }
  DecoderLayersParams Whole(const LayerWorld& w, const LayerRef& first, size_t exchange_bytes) {
    DecoderLayersParams p;
    p.rows = w.rows;
    p.map = w.map;
    p.lanes = w.world.lanes();
    p.layer = first;
    p.layers = 2;
    p.hidden = Hidden(w);
    p.final_norm = w.next_norm;
    p.epsilon = w.layer.norm_epsilon;
    p.normed = Empty(w, w.shape.hidden);
    p.exchange = memory().Raw(nullptr, exchange_bytes);
    return p;
  }

  // The same as the layer that `counter` says.
  DecoderLayersParams OfCounter(const LayerWorld& w, DecoderLayersParams p, int32_t* counter) {
    p.layer.counter = p.advance = counter;
    p.delta = EmptyResidual(w);
    p.final_norm = nullptr;
    p.normed = Rows();
    return p;
  }
  // What both layers leave in `normed`, a launch each.
  Floats Each(const LayerWorld& w, const DecoderLayersParams& whole) {
    int32_t* const counter = memory().Upload(std::vector<int32_t>{0});
    DecoderLayersParams p = OfCounter(w, whole, counter);
    p.hidden = Hidden(w);
    for (const int32_t next : {1, 2}) {
      Execute(p);
      EXPECT_EQ(memory().Download(counter, 1)[0], next);
    }
    const Rows normed = Empty(w, w.shape.hidden);
    Execute(AddNormParams{.rows = w.rows,
                          .sum = p.hidden,
                          .delta = p.delta,
                          .post_norm = w.layer.mlp_post_norm,
                          .weight = w.next_norm,
                          .epsilon = w.layer.norm_epsilon,
                          .normed = normed});
    return Get(w, normed);
  }

  // What the layers leave in `normed`, one operation after the other.
  Floats Chain(const LayerWorld& w, LayerRef layer) {
    const bool post_norms = w.shape.post_norms;
    const Rows hidden = Hidden(w);
    const Rows sum = post_norms ? EmptyResidual(w) : Rows();
    const Rows delta = post_norms ? EmptyResidual(w) : Rows();
    const Rows between = post_norms ? sum : hidden;
    const Rows normed = Empty(w, w.shape.hidden);
    const Rows qkv = EmptyQkv(w);
    const Rows activated = Empty(w, w.shape.intermediate);
    for (layer.index = 0; layer.index < 2; ++layer.index) {
      layer.host = w.shape.on_host ? &table_[layer.index] : nullptr;
      Execute(NormQkvParams{.rows = w.rows,
                            .layer = layer,
                            .hidden = hidden,
                            .normed = normed,
                            .qkv = qkv,
                            .delta = delta,
                            .sum = sum});
      QkvAttentionParams attention = QkvAttention(w, qkv);
      attention.layer = layer;
      Execute(attention);
      Execute(OutputResidualParams{.rows = w.rows,
                                   .layer = layer,
                                   .attention = attention.out,
                                   .hidden = between,
                                   .delta = delta});
      Execute(NormGateUpParams{.rows = w.rows,
                               .layer = layer,
                               .hidden = between,
                               .normed = normed,
                               .out = activated,
                               .delta = delta,
                               .sum = post_norms ? hidden : Rows()});
      Execute(DownResidualParams{.rows = w.rows,
                                 .layer = layer,
                                 .in = activated,
                                 .hidden = hidden,
                                 .advance = nullptr,
                                 .delta = delta});
    }
    if (post_norms) {
      Execute(AddNormParams{.rows = w.rows,
                            .sum = hidden,
                            .delta = delta,
                            .post_norm = w.layer.mlp_post_norm,
                            .weight = w.next_norm,
                            .epsilon = w.layer.norm_epsilon,
                            .normed = normed});
      return Get(w, normed);
    }
    NormTo(w, hidden, w.next_norm, normed);
    return Get(w, normed);
  }

 private:
  std::vector<LayerParams> table_;  // that TableOf made last
};

TEST_P(DecoderLayersTest, IsItsLayersOneAfterTheOther) {
  const bool same_bits = GetParam().device.batch_invariant;
  int offered = 0;
  for (LayerShape shape : kOffered) {
    // As a step's layers are where bits are to be the same.
    shape.on_host = shape.adjacent = same_bits;
    const DecoderLayersOffer offer = OfferOf(shape);
    for (int32_t rows = 1; rows <= offer.rows; ++rows) {
      // The first slot of a sequence, fewer slots than parts, and many; of more than one split.
      for (const int32_t position : {0, 2, 61, 255, 287}) {
        SCOPED_TRACE(::testing::Message() << "hidden " << shape.hidden << ", rows " << rows
                                          << ", position " << position);
        LayerWorld w(memory(), shape, rows, activations(), dtype());
        const LayerWorld second(memory(), shape, rows, activations(), dtype());
        std::vector<int32_t> lanes, positions;
        for (int32_t r = 0; r < rows; ++r) {
          lanes.push_back(r);
          positions.push_back(position);
        }
        w.map = w.world.Map(lanes, positions);
        // Layer 1's post-norm is what the end norms by.
        w.layer.mlp_post_norm = second.layer.mlp_post_norm;
        const LayerRef first = TableOf(w, second);
        const DecoderLayersParams p = Whole(w, first, offer.exchange_bytes);
        const Floats clean = w.cache.Download(memory());
        Execute(p);
        const Floats got = Get(w, p.normed);
        const Floats kv = w.cache.Download(memory());
        const Floats second_kv = second.cache.Download(memory());
        EXPECT_NE(kv, clean);
        // The same bits again: on words and counts of the run before.
        Execute(p);
        EXPECT_EQ(Get(w, p.normed), got);
        EXPECT_EQ(w.cache.Download(memory()), kv);
        if (same_bits) {
          EXPECT_FALSE(offer.counted) << "a launch a layer is not compared";
          EXPECT_EQ(got, Chain(w, first));
          EXPECT_EQ(w.cache.Download(memory()), kv);
          EXPECT_EQ(second.cache.Download(memory()), second_kv);
          ++offered;
          continue;
        }
        // A launch a layer: the same again and again, too, with all layers at once in between,
        // which wait for words and counts that these have left.
        const Floats each = Each(w, p);
        const Floats each_kv = w.cache.Download(memory());
        const Floats each_second_kv = second.cache.Download(memory());
        EXPECT_EQ(Each(w, p), each);
        EXPECT_EQ(w.cache.Download(memory()), each_kv);
        EXPECT_EQ(second.cache.Download(memory()), each_second_kv);
        Execute(p);
        EXPECT_EQ(Get(w, p.normed), got);
        EXPECT_EQ(second.cache.Download(memory()), second_kv);
        EXPECT_EQ(Each(w, p), each);
        const Floats want = Chain(w, first);
        const Floats want_kv = w.cache.Download(memory());
        const Floats want_second_kv = second.cache.Download(memory());
        ExpectNear(got, reference::Wide(want), 2 * tolerance());
        ExpectNear(kv, reference::Wide(want_kv), tolerance());
        ExpectNear(second_kv, reference::Wide(want_second_kv), 2 * tolerance());
        ExpectNear(each, reference::Wide(want), 2 * tolerance());
        ExpectNear(each_kv, reference::Wide(want_kv), tolerance());
        ExpectNear(each_second_kv, reference::Wide(want_second_kv), 2 * tolerance());
        ++offered;
      }
    }
  }
  if (offered == 0) GTEST_SKIP() << "the device offers none of the shapes";
}

TEST_P(DecoderLayersTest, RefusesWhatItDoesNotOffer) {
  if (InBlocks(dtype())) GTEST_SKIP() << "the same";
  const LayerShape small{.biases = false};
  EXPECT_EQ(OfferOf(small).rows, 0);
  LayerShape biased = kOffered[1];
  biased.biases = true;
  EXPECT_EQ(OfferOf(biased).rows, 0);
  LayerShape turned = kOffered[1];
  turned.rotary_dim = 32;
  EXPECT_EQ(OfferOf(turned).rows, 0);
  const LayerWorld w(memory(), small, 1, activations(), dtype());
  DecoderLayersParams p = Whole(w, TableOf(w, w), 1024);
  const absl::Status status = ops().Run(p);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("decoder_layers"));
  p.layer.index = 1;
  EXPECT_THAT(std::string(ops().Run(p).message()), HasSubstr("layer is not the first"));
  p.layer.index = 0;
  int32_t* const counter = memory().Upload(std::vector<int32_t>{0});
  p.advance = counter;
  EXPECT_THAT(std::string(ops().Run(p).message()), HasSubstr("advance is set without a counter"));
  DecoderLayersParams one = OfCounter(w, p, counter);
  EXPECT_EQ(ops().Run(one).code(), absl::StatusCode::kUnimplemented);
  one.advance = nullptr;
  EXPECT_THAT(std::string(ops().Run(one).message()),
              HasSubstr("advance is not the layer's counter"));
  one.advance = counter;
  one.delta = Rows();
  EXPECT_THAT(std::string(ops().Run(one).message()), HasSubstr("delta"));
  EXPECT_EQ(memory().Download(counter, 1)[0], 0);
  p.advance = nullptr;
  p.exchange = nullptr;
  EXPECT_THAT(std::string(ops().Run(p).message()), HasSubstr("exchange is null"));
  EXPECT_EQ(Get(w, p.normed), Floats(w.shape.hidden));
}

SIROCCO_ON_ALL_TYPED_DEVICES(DecoderLayersTest);

}  // namespace
}  // namespace sirocco
