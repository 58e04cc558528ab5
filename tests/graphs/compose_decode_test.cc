// The operations of a decode step's plan: which layer each one knows, which buffers it reads and
// writes, and which of them a step of so many rows takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "graphs/decode_plan.h"
#include "tests/graphs/compose_fixture.h"

namespace sirocco {
namespace {

using ::testing::ElementsAre;
using ::testing::Not;

TEST_F(ComposeTest, LayerPlanFindsItsLayerByTheCounter) {
  const Plan layer = ComposeAnyLayer(Context());
  const auto down = All<DownResidualParams>(layer);
  ASSERT_EQ(down.size(), 1u);
  EXPECT_EQ(down[0].advance, buffers_.layer_counter);
  for (const LayerRef& ref :
       {All<NormQkvParams>(layer).at(0).layer, All<QkvAttentionParams>(layer).at(0).layer,
        All<OutputResidualParams>(layer).at(0).layer, All<NormGateUpParams>(layer).at(0).layer,
        down[0].layer}) {
    EXPECT_EQ(ref.table, layers_.data());
    EXPECT_EQ(ref.counter, buffers_.layer_counter);
    EXPECT_EQ(ref.host, nullptr);
    EXPECT_EQ(ref.q_rows, 64);
    EXPECT_EQ(ref.kv_rows, 32);
    EXPECT_EQ(ref.head_dim, 16);
    EXPECT_EQ(ref.intermediate, 80);
  }
  // The prologue sets it to the first layer.
  EXPECT_EQ(
      All<BeginStepParams>(ComposePrologue(Context(), buffers_.layer_counter)).at(0).layer_counter,
      buffers_.layer_counter);
}

TEST_F(ComposeTest, DecoderPlanKnowsEachLayerOnTheHostToo) {
  const Plan plan = ComposeDecoder(Context());
  const auto expect_layer = [&](const LayerRef& ref, int layer) {
    EXPECT_EQ(ref.index, layer);
    EXPECT_EQ(ref.counter, nullptr);
    EXPECT_EQ(ref.host, &layers_[layer]);
  };
  expect_layer(All<NormQkvParams>(plan).at(0).layer, 0);
  for (int i = 0; i < 3; ++i) {
    if (i > 0) expect_layer(All<QkvParams>(plan).at(i - 1).layer, i);
    expect_layer(All<OutputResidualParams>(plan).at(i).layer, i);
    expect_layer(All<NormGateUpParams>(plan).at(i).layer, i);
    expect_layer(All<DownNormParams>(plan).at(i).layer, i);
  }
}

TEST_F(ComposeTest, EntriesBelongToTheirLayers) {
  for (const Mode mode : {Mode::kEager, Mode::kDecoder, Mode::kLayer}) {
    for (const int32_t read : {0, 4}) {
      ComposeContext context = Context();
      context.norms_where_read_rows = read;
      context.paired_rows = 16;
      for (const Plan& part : ComposeDecode(mode, context).parts) {
        for (const Plan::Entry& entry : part.entries()) {
          const std::string expected =
              entry.layer == Plan::kNoLayer ? entry.part : absl::StrCat("layer ", entry.layer);
          EXPECT_EQ(entry.part, expected);
          if (mode != Mode::kLayer) {
            EXPECT_EQ(entry.layer == Plan::kNoLayer, !entry.part.starts_with("layer"));
          }
        }
      }
    }
  }
}

TEST_F(ComposeTest, SomeLayersMayRun) {
  const Plan plan = ComposeDecoder(Context());
  ASSERT_TRUE(device_.BeginRecord().ok());
  device_.events.clear();
  ASSERT_TRUE(plan.RunSome(device_.ops(), 2, {false, true, true}).ok());
  EXPECT_THAT(device_.events,
              ElementsAre("begin_step 2", "embed 2",  //
                          "qkv 2", "qkv_attention 2", "output_residual 2", "norm_gate_up 2",
                          "down_norm 2",  //
                          "qkv 2", "qkv_attention 2", "output_residual 2", "norm_gate_up 2",
                          "down_norm 2",  //
                          "matmul 2", "sample 2"));
}

TEST_F(ComposeTest, LayerModeRunsTheOnePlanOncePerLayer) {
  const DecodePlan plan = ComposeDecode(Mode::kLayer, Context());
  EXPECT_EQ(plan.parts.size(), 3u);
  EXPECT_THAT(plan.order, ElementsAre(0, 1, 1, 1, 2));
}

TEST_F(ComposeTest, DecoderNormsForTheNextLayerAndTheHead) {
  const Plan plan = ComposeDecoder(Context());
  const auto down = All<DownNormParams>(plan);
  ASSERT_EQ(down.size(), 3u);
  EXPECT_EQ(down[0].next_norm, model_.weights.layers[1].attention_norm);
  EXPECT_EQ(down[1].next_norm, model_.weights.layers[2].attention_norm);
  EXPECT_EQ(down[2].next_norm, model_.weights.final_norm);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(down[i].layer.index, i);
    EXPECT_EQ(down[i].layer.counter, nullptr);
    EXPECT_EQ(down[i].normed.data, buffers_.normed.data);
  }
  const auto head = All<MatMulParams>(plan);
  ASSERT_EQ(head.size(), 1u);
  EXPECT_EQ(head[0].in.data, buffers_.normed.data);
  EXPECT_EQ(head[0].weight.data, model_.weights.head.data);
}

TEST_F(ComposeTest, TheChainsOperationsKnowTheirLayer) {
  Make(RandomNorms::kAll);
  ComposeContext context = Context();
  context.norms_where_read_rows = 4;
  const Plan plan = ComposeDecoder(context);
  auto qkv = All<NormQkvParams>(plan);
  const auto down = All<DownResidualParams>(plan);
  ASSERT_EQ(qkv.size(), 4u);  // the last is of the first layer where norms are written
  qkv.pop_back();
  ASSERT_EQ(qkv.size(), 3u);
  ASSERT_EQ(down.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(qkv[i].layer.index, i);
    EXPECT_EQ(qkv[i].layer.counter, nullptr);
    EXPECT_EQ(down[i].layer.index, i);
    EXPECT_EQ(down[i].advance, nullptr);
    EXPECT_EQ(qkv[i].hidden.data, buffers_.hidden.data);
    EXPECT_EQ(down[i].hidden.data, buffers_.hidden.data);
  }
  EXPECT_EQ(All<BeginStepParams>(plan).at(0).layer_counter, nullptr);
}

// The stream goes from `hidden` to `sum` where attention's output is taken in, and back where the
// MLP's is: each layer begins with `hidden`.
TEST_F(ComposeTest, PostNormsUseTheStreamsBuffersInTurn) {
  Make(RandomNorms::kAll);
  const void* const hidden = buffers_.hidden.data;
  const void* const sum = buffers_.sum.data;
  const void* const delta = buffers_.delta.data;
  ASSERT_NE(sum, nullptr);
  EXPECT_EQ(All<EmbedParams>(ComposePrologue(Context(), buffers_.layer_counter)).at(0).out.data,
            hidden);

  const Plan layer = ComposeAnyLayer(Context());
  const auto qkv = All<NormQkvParams>(layer).at(0);
  EXPECT_THAT((std::vector{qkv.hidden.data, qkv.delta.data, qkv.sum.data}),
              ElementsAre(hidden, delta, sum));
  const auto output = All<OutputResidualParams>(layer).at(0);
  EXPECT_THAT((std::vector{output.hidden.data, output.delta.data}), ElementsAre(sum, delta));
  const auto gate_up = All<NormGateUpParams>(layer).at(0);
  EXPECT_THAT((std::vector{gate_up.hidden.data, gate_up.delta.data, gate_up.sum.data}),
              ElementsAre(sum, delta, hidden));
  const auto down = All<DownResidualParams>(layer).at(0);
  EXPECT_THAT((std::vector{down.hidden.data, down.delta.data}), ElementsAre(hidden, delta));

  const auto last = All<AddNormParams>(ComposeLayerEpilogue(Context())).at(0);
  EXPECT_THAT((std::vector{last.sum.data, last.delta.data}), ElementsAre(hidden, delta));
  EXPECT_EQ(last.post_norm, model_.weights.layers[2].mlp_post_norm);
  EXPECT_EQ(last.weight, model_.weights.final_norm);
  EXPECT_EQ(last.normed.data, buffers_.normed.data);
}

// In the decoder's plan only the MLP's first operation moves it: DownNorm adds in place.
TEST_F(ComposeTest, TheDecoderMovesTheStreamOnceALayer) {
  Make(RandomNorms::kAll);
  const Plan plan = ComposeDecoder(Context());
  const auto qkv = All<NormQkvParams>(plan);
  ASSERT_EQ(qkv.size(), 1u);
  EXPECT_EQ(qkv[0].hidden.data, buffers_.hidden.data);
  EXPECT_EQ(qkv[0].delta.data, nullptr);  // nothing comes before layer 0
  EXPECT_EQ(qkv[0].sum.data, nullptr);
  const void* stream[2] = {buffers_.hidden.data, buffers_.sum.data};
  for (size_t i = 0; i < 3; ++i) {
    const auto output = All<OutputResidualParams>(plan).at(i);
    const auto gate_up = All<NormGateUpParams>(plan).at(i);
    const auto down = All<DownNormParams>(plan).at(i);
    EXPECT_EQ(output.hidden.data, stream[i % 2]);
    EXPECT_EQ(gate_up.hidden.data, stream[i % 2]);
    EXPECT_EQ(gate_up.sum.data, stream[(i + 1) % 2]);
    EXPECT_EQ(down.hidden.data, stream[(i + 1) % 2]);
    for (const void* delta : {output.delta.data, gate_up.delta.data, down.delta.data}) {
      EXPECT_EQ(delta, buffers_.delta.data);
    }
  }
}

TEST_F(ComposeTest, WithoutPostNormsThereIsOneStream) {
  EXPECT_EQ(buffers_.sum.data, nullptr);
  for (const Plan& plan : {ComposeAnyLayer(Context()), ComposeDecoder(Context())}) {
    EXPECT_EQ(All<NormQkvParams>(plan).at(0).delta.data, nullptr);
    EXPECT_EQ(All<OutputResidualParams>(plan).at(0).delta.data, nullptr);
    const auto gate_up = All<NormGateUpParams>(plan).at(0);
    EXPECT_EQ(gate_up.hidden.data, buffers_.hidden.data);
    EXPECT_EQ(gate_up.delta.data, nullptr);
    EXPECT_EQ(gate_up.sum.data, nullptr);
  }
}

TEST_F(ComposeTest, RunSetsTheRowsAndKeepsThePlan) {
  const Plan plan = ComposeDecoder(Context());
  // Effects need lanes; this plan is only recorded.
  ASSERT_TRUE(device_.BeginRecord().ok());
  ASSERT_TRUE(plan.Run(device_.ops(), 3).ok());
  ASSERT_TRUE(plan.Run(device_.ops(), 2).ok());
  const absl::StatusOr<std::unique_ptr<Recording>> recording = device_.EndRecord();
  ASSERT_TRUE(recording.ok());
  EXPECT_EQ((*recording)->size(), 2 * static_cast<int>(plan.entries().size()));
  EXPECT_THAT(device_.events, testing::Contains("norm_qkv 3"));
  EXPECT_THAT(device_.events, testing::Contains("norm_qkv 2"));
  EXPECT_EQ(All<NormQkvParams>(plan).at(0).rows, 0);
}

TEST_F(ComposeTest, AStepTakesWhatIsForItsRows) {
  ComposeContext context = Context();
  context.norms_where_read_rows = 2;
  const Plan plan = ComposeDecoder(context);
  const auto recorded = [&](int32_t rows) {
    EXPECT_TRUE(device_.BeginRecord().ok());
    EXPECT_TRUE(plan.Run(device_.ops(), rows).ok());
    const absl::StatusOr<std::unique_ptr<Recording>> recording = device_.EndRecord();
    return recording.ok() ? (*recording)->size() : -1;
  };
  const int chain = recorded(1);
  EXPECT_EQ(chain, 2 + 3 * 5 + 3);
  EXPECT_EQ(recorded(2), chain);
  EXPECT_THAT(device_.events, testing::Not(testing::Contains("down_norm 2")));
  EXPECT_EQ(recorded(3), static_cast<int>(plan.entries().size()) - chain);
  EXPECT_THAT(device_.events, testing::Contains("down_norm 3"));
  EXPECT_THAT(device_.events, testing::Not(testing::Contains("down_residual 3")));
}

// Where a device joins products in pairs, steps of so many rows have the same operations, in pairs
// from the first layer's attention to the last layer's down.
TEST_F(ComposeTest, ProductsMayComeInPairs) {
  for (const RandomNorms norms : {RandomNorms::kFew, RandomNorms::kAll}) {
    Make(norms);
    ComposeContext context = Context();
    context.norms_where_read_rows = 2;
    context.paired_rows = 16;
    const Plan plan = ComposeDecoder(context);
    Plan in_turn, plain;
    for (const Plan::Entry& entry : plan.entries()) {
      if (entry.rows.Has(2)) {
        EXPECT_EQ(std::get_if<OutputGateUpParams>(&entry.operation), nullptr);
        EXPECT_EQ(std::get_if<DownQkvParams>(&entry.operation), nullptr);
      }
      if (entry.rows.Has(17)) plain.Add(entry.part, entry.operation);
      EXPECT_NE(entry.rows.Has(3), entry.rows.Has(17) || entry.rows.Has(2));
      EXPECT_EQ(entry.rows.Has(3), entry.rows.Has(16));
      if (!entry.rows.Has(3)) continue;
      if (const auto* pair = std::get_if<OutputGateUpParams>(&entry.operation)) {
        in_turn.Add(entry.part, FirstOf(*pair));
        in_turn.Add(entry.part, SecondOf(*pair));
      } else if (const auto* pair = std::get_if<DownQkvParams>(&entry.operation)) {
        EXPECT_EQ(pair->qkv.layer.index, pair->down.layer.index + 1);
        in_turn.Add(entry.part, FirstOf(*pair));
        in_turn.Add(absl::StrCat("layer ", pair->qkv.layer.index), SecondOf(*pair));
      } else {
        in_turn.Add(entry.part, entry.operation);
      }
    }
    EXPECT_EQ(All<OutputGateUpParams>(plan).size(), 3u);
    EXPECT_EQ(All<DownQkvParams>(plan).size(), 2u);
    // On the same buffers, too: as far as people see them.
    std::vector<PlanEntry> paired_entries, plain_entries;
    in_turn.Describe(paired_entries);
    plain.Describe(plain_entries);
    ASSERT_EQ(paired_entries.size(), plain_entries.size());
    for (size_t i = 0; i < plain_entries.size(); ++i) {
      EXPECT_EQ(paired_entries[i].part, plain_entries[i].part);
      EXPECT_EQ(paired_entries[i].operation, plain_entries[i].operation);
      EXPECT_EQ(paired_entries[i].detail, plain_entries[i].detail);
    }
    const auto gate_up = All<NormGateUpParams>(in_turn);
    const auto down = All<DownNormParams>(in_turn);
    const auto plain_gate_up = All<NormGateUpParams>(plain);
    const auto plain_down = All<DownNormParams>(plain);
    for (size_t i = 0; i < plain_down.size(); ++i) {
      EXPECT_EQ(gate_up.at(i).hidden.data, plain_gate_up[i].hidden.data);
      EXPECT_EQ(gate_up.at(i).sum.data, plain_gate_up[i].sum.data);
      EXPECT_EQ(down.at(i).hidden.data, plain_down[i].hidden.data);
      EXPECT_EQ(down.at(i).next_norm, plain_down[i].next_norm);
    }
  }
}

// Of the entries that a step of so many rows runs.
std::vector<std::string> Names(const Plan& plan, int32_t rows) {
  std::vector<std::string> names;
  for (const Plan::Entry& entry : plan.entries()) {
    if (entry.rows.Has(rows)) names.emplace_back(NameOf(entry.operation));
  }
  return names;
}

// Where a device offers all layers as one operation, steps of the fewest rows are that, the others
// what they were.
TEST_F(ComposeTest, AllLayersMayBeOneOperation) {
  ComposeContext context = Context();
  context.norms_where_read_rows = 2;
  context.decoder_layers = {.rows = 1, .exchange_bytes = 64};
  int exchange = 0;
  context.exchange = &exchange;
  const Plan plan = ComposeDecoder(context);
  const auto whole = All<DecoderLayersParams>(plan);
  ASSERT_EQ(whole.size(), 1u);
  EXPECT_EQ(whole[0].layers, 3);
  EXPECT_EQ(whole[0].layer.index, 0);
  EXPECT_EQ(whole[0].layer.host, nullptr);
  EXPECT_EQ(whole[0].hidden.data, buffers_.hidden.data);
  EXPECT_EQ(whole[0].normed.data, buffers_.normed.data);
  EXPECT_EQ(whole[0].final_norm, model_.weights.final_norm);
  EXPECT_EQ(whole[0].exchange, &exchange);
  const std::vector<std::string> one = Names(plan, 1), two = Names(plan, 2), three = Names(plan, 3);
  EXPECT_THAT(one, ElementsAre("begin_step", "embed", "decoder_layers", "matmul", "sample"));
  EXPECT_THAT(two, testing::Contains("down_residual"));
  EXPECT_THAT(two, Not(testing::Contains("decoder_layers")));
  EXPECT_THAT(three, testing::Contains("down_norm"));
  EXPECT_THAT(three, Not(testing::Contains("decoder_layers")));
}

// Where norms are computed where they are read for any number of rows, as batch-invariant devices
// want it, all others are the chain.
TEST_F(ComposeTest, AllLayersMayBeOneOperationBesideAChainForAllOtherRows) {
  ComposeContext context = Context();
  context.norms_where_read_rows = INT32_MAX;
  const std::vector<std::string> chain = Names(ComposeDecoder(context), 1);
  context.decoder_layers = {.rows = 1, .exchange_bytes = 64, .counted = false};
  const Plan plan = ComposeDecoder(context);
  EXPECT_THAT(Names(plan, 1),
              ElementsAre("begin_step", "embed", "decoder_layers", "matmul", "sample"));
  for (const int32_t rows : {2, 3, 1000}) EXPECT_EQ(Names(plan, rows), chain) << rows;
}

// More rows than norms are computed for where they are read: then no chain is left.
TEST_F(ComposeTest, AllLayersAsOneOperationMayBeForMoreRowsThanTheChain) {
  ComposeContext context = Context();
  context.norms_where_read_rows = 1;
  context.decoder_layers = {.rows = 2, .exchange_bytes = 64};
  const Plan plan = ComposeDecoder(context);
  for (const Plan::Entry& entry : plan.entries()) {
    EXPECT_EQ(entry.rows.Has(1), entry.rows.Has(2)) << NameOf(entry.operation);
    EXPECT_NE(entry.rows.Has(1), entry.rows.Has(3)) << NameOf(entry.operation);
  }
}

// The layer's plan has the same operation, by the counter. What the last one adds joins in the
// epilogue, in models without post-norms too.
TEST_F(ComposeTest, ALayerMayBeOneOperation) {
  for (const bool post_norms : {false, true}) {
    model_.descriptor.post_norms = post_norms;
    ComposeContext context = Context();
    context.decoder_layers = {.rows = 2, .exchange_bytes = 64};
    int exchange = 0;
    context.exchange = &exchange;
    const DecodePlan plan = ComposeDecode(Mode::kLayerGraph, context);
    ASSERT_EQ(plan.parts.size(), 3u);
    EXPECT_THAT(plan.order, ElementsAre(0, 1, 1, 1, 2));
    const auto one = All<DecoderLayersParams>(plan.parts[1]);
    ASSERT_EQ(one.size(), 1u);
    EXPECT_EQ(one[0].layers, 3);
    EXPECT_EQ(one[0].layer.counter, buffers_.layer_counter);
    EXPECT_EQ(one[0].advance, buffers_.layer_counter);
    EXPECT_EQ(one[0].hidden.data, buffers_.hidden.data);
    EXPECT_EQ(one[0].delta.data, buffers_.delta.data);
    EXPECT_EQ(one[0].exchange, &exchange);
    EXPECT_THAT(Names(plan.parts[0], 2), ElementsAre("begin_step", "embed"));
    EXPECT_THAT(Names(plan.parts[1], 1), ElementsAre("decoder_layers"));
    EXPECT_THAT(Names(plan.parts[1], 2), ElementsAre("decoder_layers"));
    EXPECT_THAT(Names(plan.parts[1], 3), ElementsAre("norm_qkv", "qkv_attention", "output_residual",
                                                     "norm_gate_up", "down_residual"));
    EXPECT_THAT(Names(plan.parts[2], 2), ElementsAre("add_norm", "matmul", "sample"));
    EXPECT_THAT(Names(plan.parts[2], 3),
                ElementsAre(post_norms ? "add_norm" : "rms_norm", "matmul", "sample"));
    const auto last = All<AddNormParams>(plan.parts[2]);
    ASSERT_EQ(last.size(), 1u);
    EXPECT_EQ(last[0].sum.data, buffers_.hidden.data);
    EXPECT_EQ(last[0].delta.data, buffers_.delta.data);
    EXPECT_EQ(last[0].weight, model_.weights.final_norm);
  }
}

// What a device is asked: the shapes, and whether anything is there that such a kernel may lack.
TEST_F(ComposeTest, ADeviceIsAskedOfTheWholeModel) {
  const auto shape = [&] {
    return MakeDecoderLayersShape(model_.descriptor, model_.weights, DType::kBFloat16,
                                  DType::kFloat8);
  };
  DecoderLayersShape of = shape();
  EXPECT_EQ(of.hidden, model_.descriptor.hidden_size);
  EXPECT_EQ(of.kv, DType::kFloat8);
  EXPECT_EQ(of.activations, DType::kBFloat16);
  EXPECT_EQ(of.weights, model_.weights.layers[0].q.dtype);
  model_.descriptor.qkv_bias = model_.descriptor.output_bias = model_.descriptor.mlp_bias = false;
  model_.descriptor.pre_norms = true;
  EXPECT_TRUE(shape().plain);
  model_.weights.layers.back().down.dtype = DType::kQ8_0;
  EXPECT_FALSE(shape().plain);
  model_.weights.layers.back().down.dtype = of.weights;
  model_.descriptor.mlp_bias = true;
  EXPECT_FALSE(shape().plain);
}

TEST_F(ComposeTest, KeptLogitsAreCopiedBeforeTheSamplerOverwritesThem) {
  options_.keep_logits = true;
  workspace_.resize(PlaceStepBuffers(model_.descriptor, options_, nullptr, buffers_));
  PlaceStepBuffers(model_.descriptor, options_, workspace_.data(), buffers_);
  ComposeContext context = Context();
  context.keep_logits = true;
  const Plan plan = ComposeEagerDecode(context);
  const auto& entries = plan.entries();
  ASSERT_GE(entries.size(), 2u);
  const auto* gather = std::get_if<GatherRowsParams>(&entries[entries.size() - 2].operation);
  ASSERT_NE(gather, nullptr);
  EXPECT_EQ(gather->in.data, buffers_.logits.data);
  EXPECT_EQ(gather->out.data, buffers_.kept_logits.data);
  EXPECT_EQ(NameOf(entries.back().operation), "sample");
}

}  // namespace
}  // namespace sirocco
