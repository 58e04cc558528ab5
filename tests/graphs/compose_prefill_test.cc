// The operations of a prefill step's plans: the decoder's with an attention of its own, the last
// layer's end of the sampled rows alone, or what a decode step is made of.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/graphs/compose_fixture.h"

namespace sirocco {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

std::vector<std::string> NamesOf(const Plan& plan) {
  std::vector<std::string> names;
  for (const Plan::Entry& entry : plan.entries()) names.emplace_back(NameOf(entry.operation));
  return names;
}

TEST_F(ComposeTest, PrefillIsTheDecodersLayersWithAnAttentionOfItsOwn) {
  for (const RandomNorms norms : {RandomNorms::kFew, RandomNorms::kAll}) {
    Make(norms);
    Plan prefill = ComposePrefill(Context());
    EXPECT_FALSE(All<BeginStepParams>(prefill).at(0).derive_positions);
    EXPECT_TRUE(All<BeginStepParams>(ComposeEagerDecode(Context())).at(0).derive_positions);
    std::vector<std::string> names = {"begin_step", "embed"};
    for (int i = 0; i < 3; ++i) {
      names.insert(names.end(), {i == 0 ? "norm_qkv" : "qkv", "qkv_end", "prefill_attention",
                                 "output_residual", "norm_gate_up", "down_norm"});
    }
    const std::vector<std::string> before(names.begin(), names.end() - 4);
    EXPECT_THAT(NamesOf(prefill), ElementsAreArray(before));
    prefill.Append(ComposePrefillEnd(Context()));
    EXPECT_THAT(NamesOf(prefill), ElementsAreArray(names));

    const auto ends = All<DownNormParams>(prefill);
    EXPECT_EQ(ends.at(1).next_norm, model_.weights.layers[2].attention_norm);
    EXPECT_EQ(ends.at(2).next_norm, nullptr);  // the head norms the rows it takes
    // Which it finds where the stream is: another buffer after each layer with post-norms.
    EXPECT_EQ(All<GatherRowsParams>(ComposePrefillHead(Context())).at(0).in.data,
              ends.at(2).hidden.data);
    EXPECT_EQ(ends.at(2).hidden.data,
              norms == RandomNorms::kAll ? buffers_.sum.data : buffers_.hidden.data);
    for (const PrefillAttentionParams& attention : All<PrefillAttentionParams>(prefill)) {
      EXPECT_EQ(attention.segments, buffers_.segments.items);
      EXPECT_EQ(attention.segment_count, buffers_.segments.count);
    }
  }
}

// Rows that are not sampled need no more of the last layer than keys and values.
TEST_F(ComposeTest, TheLastLayersEndIsOfSampledRows) {
  for (const RandomNorms norms : {RandomNorms::kFew, RandomNorms::kAll, RandomNorms::kPost}) {
    Make(norms);
    const bool post_norms = norms != RandomNorms::kFew;
    const Plan sampled = ComposePrefillSampled(Context());
    EXPECT_THAT(NamesOf(sampled),
                ElementsAre("gather_rows", "gather_rows", "attention", "output_residual",
                            "norm_gate_up", "down_norm", "matmul"));
    const auto gathered = All<GatherRowsParams>(sampled);
    EXPECT_EQ(gathered.at(0).in.data, buffers_.q.data);
    EXPECT_EQ(gathered.at(0).out.data, buffers_.head_q.data);
    EXPECT_EQ(gathered.at(1).in.data, buffers_.hidden.data);  // of two layers: back again
    EXPECT_EQ(gathered.at(1).out.data, buffers_.head_hidden.data);
    for (const GatherRowsParams& gather : gathered) EXPECT_EQ(gather.index, buffers_.head_index);
    const auto attention = All<DecodeAttentionParams>(sampled).at(0);
    EXPECT_EQ(attention.map.lane, buffers_.head_rows.lane);
    EXPECT_EQ(attention.map.position, buffers_.head_rows.position);
    EXPECT_EQ(attention.q.data, buffers_.head_q.data);
    EXPECT_EQ(attention.kv.data, layers_[2].kv.data);
    EXPECT_EQ(attention.shape.window, layers_[2].attention.window);
    // The stream of all rows stays as it is.
    const auto output = All<OutputResidualParams>(sampled).at(0);
    const auto gate_up = All<NormGateUpParams>(sampled).at(0);
    const auto down = All<DownNormParams>(sampled).at(0);
    EXPECT_EQ(output.attention.data, attention.out.data);
    EXPECT_EQ(output.layer.host, &layers_[2]);
    EXPECT_EQ(output.hidden.data, buffers_.head_hidden.data);
    EXPECT_EQ(gate_up.hidden.data, buffers_.head_hidden.data);
    EXPECT_EQ(gate_up.sum.data, post_norms ? buffers_.sum.data : nullptr);
    EXPECT_EQ(down.hidden.data, post_norms ? buffers_.sum.data : buffers_.head_hidden.data);
    EXPECT_EQ(down.next_norm, model_.weights.final_norm);
    EXPECT_EQ(down.normed.data, buffers_.head_normed.data);
    EXPECT_EQ(All<MatMulParams>(sampled).at(0).in.data, buffers_.head_normed.data);
  }
}

// A chain's last layer is whole: nothing is left but the head.
TEST_F(ComposeTest, ChainsOfPrefillAreWhole) {
  Make(RandomNorms::kExperts);
  const ComposeContext context = Context();
  EXPECT_EQ(All<ExpertsParams>(ComposePrefill(context)).size(), 3u);
  EXPECT_EQ(All<PrefillAttentionParams>(ComposePrefill(context)).size(), 3u);
  EXPECT_THAT(ComposePrefillEnd(context).entries(), IsEmpty());
  EXPECT_EQ(NamesOf(ComposePrefillSampled(context)), NamesOf(ComposePrefillHead(context)));
}

// Where a device asks for it: then a position's bits do not hang on the pass.
TEST_F(ComposeTest, PrefillMayBeMadeOfDecodesOperations) {
  for (const RandomNorms norms :
       {RandomNorms::kFew, RandomNorms::kAll, RandomNorms::kPost, RandomNorms::kExperts}) {
    Make(norms);
    ComposeContext context = Context();
    context.norms_where_read_rows = INT32_MAX;
    const auto layers = [](const Plan& plan) {
      std::vector<std::string> names;
      for (const auto& entry : plan.entries()) {
        if (entry.part.rfind("layer", 0) != 0) continue;
        EXPECT_TRUE(entry.rows.Has(1) && entry.rows.Has(512)) << NameOf(entry.operation);
        if (NameOf(entry.operation) == "qkv_attention") {  // in two
          names.emplace_back("qkv_end");
          names.emplace_back("attention");
        } else {
          names.emplace_back(NameOf(entry.operation));
        }
      }
      return names;
    };
    const auto on_host = [](const Plan& plan) {  // layers whose products the host knows
      int count = 0;
      for (const OutputResidualParams& p : All<OutputResidualParams>(plan)) {
        count += p.layer.host != nullptr ? 1 : 0;
      }
      return count;
    };
    context.prefill = PrefillOps::kFused;
    EXPECT_EQ(layers(ComposePrefill(context)), layers(ComposeDecoder(context)));
    EXPECT_EQ(on_host(ComposePrefill(context)), on_host(ComposeDecoder(context)));
    EXPECT_GT(on_host(ComposePrefill(context)), 0);
    context.prefill = PrefillOps::kFusedAnyLayer;
    EXPECT_EQ(layers(ComposePrefill(context)), layers(ComposeDecoder(context)));
    EXPECT_EQ(on_host(ComposePrefill(context)), on_host(ComposeAnyLayer(context)));
    EXPECT_EQ(on_host(ComposePrefill(context)), 0);
    context.prefill = PrefillOps::kEager;
    EXPECT_EQ(layers(ComposePrefill(context)), layers(ComposeEagerDecode(context)));
    // What the head sees is whole.
    for (const PrefillOps ops :
         {PrefillOps::kFused, PrefillOps::kFusedAnyLayer, PrefillOps::kEager}) {
      context.prefill = ops;
      const Plan prefill = ComposePrefill(context);
      const bool owes = ops != PrefillOps::kEager && context.descriptor.post_norms;
      EXPECT_EQ(All<AddNormParams>(prefill).size(), owes ? 1u : 0u);
      EXPECT_THAT(All<PrefillAttentionParams>(prefill), IsEmpty());
      EXPECT_THAT(ComposePrefillEnd(context).entries(), IsEmpty());
      EXPECT_EQ(NamesOf(ComposePrefillSampled(context)), NamesOf(ComposePrefillHead(context)));
      EXPECT_EQ(All<GatherRowsParams>(ComposePrefillHead(context)).at(0).in.data,
                buffers_.hidden.data);
    }
  }
}

}  // namespace
}  // namespace sirocco
