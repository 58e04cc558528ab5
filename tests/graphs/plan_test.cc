// What the modes' plans are made of, as people are told of them; and which layers are alike.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graphs/decode_plan.h"
#include "graphs/executor.h"
#include "graphs/layer_params.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

std::vector<std::string> Operations(const std::vector<PlanEntry>& plan, std::string_view part) {
  std::vector<std::string> found;
  for (const PlanEntry& entry : plan) {
    if (entry.part == part) found.push_back(entry.operation);
  }
  return found;
}

std::vector<PlanEntry> PlanOf(Mode mode, RandomNorms norms = RandomNorms::kFew,
                              int32_t norms_where_read_rows = 0) {
  const ModelDescriptor model = RandomModelDescriptor(norms);
  return DescribeDecodePlan(model, mode, WeightShapes(model, DType::kBFloat16), DType::kBFloat16,
                            norms_where_read_rows);
}

TEST(PlanTest, EagerIsOneEntryAnOperation) {
  const std::vector<PlanEntry> plan = PlanOf(Mode::kEager);
  EXPECT_THAT(Operations(plan, "prologue"), ElementsAre("begin_step", "embed"));
  EXPECT_THAT(Operations(plan, "epilogue"), ElementsAre("rms_norm", "matmul", "sample"));
  const size_t layers = RandomModelDescriptor().layers.size();
  for (size_t i = 0; i < layers; ++i) {
    EXPECT_THAT(Operations(plan, "layer " + std::to_string(i)),
                ElementsAre("rms_norm", "matmul", "matmul", "matmul", "rotary", "rotary",
                            "write_kv", "attention", "matmul", "add", "rms_norm", "matmul",
                            "matmul", "gated_activation", "matmul", "add"));
  }
  EXPECT_EQ(plan.size(), 2 + 16 * layers + 3);
}

TEST(PlanTest, EagerHasAnEntryForEveryNorm) {
  const std::vector<PlanEntry> plan = PlanOf(Mode::kEager, RandomNorms::kAll);
  for (const char* part : {"layer 0", "layer 1", "layer 2"}) {
    EXPECT_THAT(
        Operations(plan, part),
        ElementsAre("rms_norm", "matmul", "matmul", "matmul", "head_norm", "head_norm", "rotary",
                    "rotary", "write_kv", "attention", "matmul", "rms_norm", "add", "rms_norm",
                    "matmul", "matmul", "gated_activation", "matmul", "rms_norm", "add"));
  }
  EXPECT_THAT(Operations(plan, "epilogue"), ElementsAre("rms_norm", "matmul", "sample"));
}

// Post-norms go into the operations that follow; the last layer's into the final norm's.
TEST(PlanTest, NormsAddNoOperationToTheFusedPlans) {
  for (const Mode mode : {Mode::kLayerGraph, Mode::kLayer}) {
    const std::vector<PlanEntry> plan = PlanOf(mode, RandomNorms::kAll);
    EXPECT_THAT(Operations(plan, "layer"),
                ElementsAre("norm_qkv", "qkv_attention", "output_residual", "norm_gate_up",
                            "down_residual"));
    EXPECT_THAT(Operations(plan, "epilogue"), ElementsAre("add_norm", "matmul", "sample"));
    EXPECT_EQ(plan.size(), 2u + 5 + 3);
  }
  for (const Mode mode : {Mode::kDecoderGraph, Mode::kDecoder}) {
    const std::vector<PlanEntry> few = PlanOf(mode);
    const std::vector<PlanEntry> all = PlanOf(mode, RandomNorms::kAll);
    ASSERT_EQ(all.size(), few.size());
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].operation, few[i].operation);
  }
}

// Norms of q and k whole are an operation of their own: none of the others has a row to itself.
TEST(PlanTest, NormsOfWholeRowsOfHeadsAreAnOperation) {
  EXPECT_THAT(
      Operations(PlanOf(Mode::kEager, RandomNorms::kPost), "layer 1"),
      ElementsAre("rms_norm", "matmul", "matmul", "matmul", "head_norm", "head_norm", "rotary",
                  "rotary", "write_kv", "attention", "matmul", "rms_norm", "add", "rms_norm",
                  "matmul", "matmul", "gated_activation", "matmul", "rms_norm", "add"));
  EXPECT_THAT(Operations(PlanOf(Mode::kLayer, RandomNorms::kPost), "layer"),
              ElementsAre("norm_qkv", "norm_qk", "qkv_attention", "output_residual", "norm_gate_up",
                          "down_residual"));
  EXPECT_THAT(Operations(PlanOf(Mode::kDecoder, RandomNorms::kPost), "layer 1"),
              ElementsAre("qkv", "norm_qk", "qkv_attention", "output_residual", "norm_gate_up",
                          "down_norm"));
}

// One operation from the MLP's norm to its residual, in every mode.
TEST(PlanTest, ExpertsAreAnOperation) {
  for (const char* layer : {"layer 0", "layer 2"}) {
    EXPECT_THAT(
        Operations(PlanOf(Mode::kEager, RandomNorms::kExperts), layer),
        ElementsAre("rms_norm", "matmul", "matmul", "matmul", "head_norm", "head_norm", "rotary",
                    "rotary", "write_kv", "attention", "matmul", "add", "experts"));
    EXPECT_THAT(Operations(PlanOf(Mode::kDecoder, RandomNorms::kExperts), layer),
                ElementsAre("norm_qkv", "qkv_attention", "output_residual", "experts"));
  }
  EXPECT_THAT(Operations(PlanOf(Mode::kLayer, RandomNorms::kExperts), "layer"),
              ElementsAre("norm_qkv", "qkv_attention", "output_residual", "experts"));
}

TEST(PlanTest, LogitsAreAdjustedWhereTheModelHasThat) {
  ModelDescriptor model = RandomModelDescriptor();
  const ModelWeights weights = WeightShapes(model, DType::kBFloat16);
  model.logit_soft_cap = 30;
  for (const Mode mode : kAllModes) {
    std::vector<std::string> few, many;
    for (const PlanEntry& entry :
         DescribeDecodePlan(model, mode, weights, DType::kBFloat16, /*norms_where_read_rows=*/4)) {
      if (entry.part != "epilogue") continue;
      if (entry.rows != "R from 5") few.push_back(entry.operation);
      if (entry.rows == "R from 5") many.push_back(entry.operation);
    }
    EXPECT_THAT(few, ElementsAre("rms_norm", "matmul", "adjust_logits", "sample"));
    if (many.empty()) continue;  // the same for all rows
    EXPECT_THAT(many, ElementsAre("matmul", "adjust_logits", "sample"));
  }
}

TEST(PlanTest, LayerIsOnePlanOfFiveForAllLayers) {
  for (const Mode mode : {Mode::kLayerGraph, Mode::kLayer}) {
    const std::vector<PlanEntry> plan = PlanOf(mode);
    EXPECT_THAT(Operations(plan, "prologue"), ElementsAre("begin_step", "embed"));
    EXPECT_THAT(Operations(plan, "layer"),
                ElementsAre("norm_qkv", "qkv_attention", "output_residual", "norm_gate_up",
                            "down_residual"));
    EXPECT_THAT(Operations(plan, "epilogue"), ElementsAre("rms_norm", "matmul", "sample"));
    EXPECT_EQ(plan.size(), 2u + 5 + 3);
  }
}

TEST(PlanTest, DecoderFusesAcrossEveryLayerBoundary) {
  for (const Mode mode : {Mode::kDecoderGraph, Mode::kDecoder}) {
    const std::vector<PlanEntry> plan = PlanOf(mode);
    EXPECT_THAT(Operations(plan, "prologue"), ElementsAre("begin_step", "embed"));
    EXPECT_THAT(
        Operations(plan, "layer 0"),
        ElementsAre("norm_qkv", "qkv_attention", "output_residual", "norm_gate_up", "down_norm"));
    for (const char* part : {"layer 1", "layer 2"}) {
      EXPECT_THAT(Operations(plan, part), ElementsAre("qkv", "qkv_attention", "output_residual",
                                                      "norm_gate_up", "down_norm"));
    }
    // No norm is left: the last layer's last operation did it.
    EXPECT_THAT(Operations(plan, "epilogue"), ElementsAre("matmul", "sample"));
    EXPECT_EQ(plan.size(), 2u + 3 * 5 + 2);
  }
}

std::vector<PlanEntry> OfRows(const std::vector<PlanEntry>& plan, std::string_view rows) {
  std::vector<PlanEntry> found;
  for (const PlanEntry& entry : plan) {
    if (entry.rows == rows) found.push_back(entry);
  }
  return found;
}

// Where products norm what they read, the layers follow one another without a counter; steps of
// more rows are those of a device whose products do not.
TEST(PlanTest, DecoderIsOneChainWhereNormsAreRead) {
  for (const RandomNorms norms : {RandomNorms::kFew, RandomNorms::kAll}) {
    const std::vector<PlanEntry> both = PlanOf(Mode::kDecoder, norms, 4);
    const std::vector<PlanEntry> many = OfRows(both, "R from 5");
    const std::vector<PlanEntry> written = PlanOf(Mode::kDecoder, norms);
    ASSERT_EQ(many.size(), written.size());
    for (size_t i = 0; i < many.size(); ++i) {
      EXPECT_EQ(many[i].part + many[i].operation, written[i].part + written[i].operation);
    }
    const std::vector<PlanEntry> plan = OfRows(both, "R 1 to 4");
    EXPECT_EQ(plan.size() + many.size(), both.size());
    EXPECT_THAT(Operations(plan, "prologue"), ElementsAre("begin_step", "embed"));
    for (const char* part : {"layer 0", "layer 1", "layer 2"}) {
      EXPECT_THAT(Operations(plan, part),
                  ElementsAre("norm_qkv", "qkv_attention", "output_residual", "norm_gate_up",
                              "down_residual"));
    }
    const char* last = norms == RandomNorms::kAll ? "add_norm" : "rms_norm";
    EXPECT_THAT(Operations(plan, "epilogue"), ElementsAre(last, "matmul", "sample"));
    EXPECT_EQ(plan.size(), 2u + 3 * 5 + 3);
  }
}

TEST(PlanTest, EveryEntryHasADetail) {
  for (const Mode mode : {Mode::kEager, Mode::kDecoder, Mode::kLayer}) {
    for (const RandomNorms norms :
         {RandomNorms::kFew, RandomNorms::kAll, RandomNorms::kPost, RandomNorms::kExperts}) {
      for (const PlanEntry& entry : PlanOf(mode, norms)) {
        EXPECT_THAT(entry.detail, Not(IsEmpty())) << entry.operation;
      }
    }
  }
  const std::vector<PlanEntry> plan = PlanOf(Mode::kEager);
  EXPECT_EQ(plan[3].operation, "matmul");
  EXPECT_EQ(plan[3].detail, "[R, 48] float32 x [64, 48] bfloat16^T");
}

// Layers of one kind at places of their own.
std::vector<LayerParams> AlikeLayers(int count) {
  std::vector<LayerParams> layers(count);
  for (int i = 0; i < count; ++i) {
    const auto at = [&](int place) {
      return reinterpret_cast<void*>(uintptr_t{1} << 20 | uintptr_t(i) << 16 | place << 12);
    };
    LayerParams& layer = layers[i];
    layer.q = {at(1), DType::kBFloat16, 32, 64};  // 4 KiB: k follows
    layer.k = layer.v = {at(2), DType::kBFloat16, 32, 64};
    layer.gate = {at(3), DType::kBFloat16, 32, 64};
    layer.up = {at(4), DType::kBFloat16, 32, 64};
    layer.mlp_norm = static_cast<const float*>(at(5));
    layer.kv.data = at(6);
    layer.attention.heads = 4;
  }
  return layers;
}

TEST(DistinctLayersTest, OneOfEachKindAndOfEachThatFollows) {
  EXPECT_THAT(DistinctLayers({}), IsEmpty());
  EXPECT_THAT(DistinctLayers(AlikeLayers(1)), ElementsAre(true));
  // The last is followed by none.
  EXPECT_THAT(DistinctLayers(AlikeLayers(5)), ElementsAre(true, false, false, false, true));
  std::vector<LayerParams> windowed = AlikeLayers(8);
  windowed[2].attention.window = windowed[6].attention.window = 512;
  EXPECT_THAT(DistinctLayers(windowed),
              ElementsAre(true, true, true, false, false, false, false, true));
}

TEST(DistinctLayersTest, WhatADeviceMayChooseByMakesLayersDiffer) {
  const auto differ = [](auto change) {
    std::vector<LayerParams> layers = AlikeLayers(7);
    change(layers[3]);
    return DistinctLayers(layers);
  };
  const auto all_after_the_change = ElementsAre(true, false, true, true, false, false, true);
  EXPECT_THAT(differ([](LayerParams& l) { l.down.dtype = DType::kFloat16; }), all_after_the_change);
  EXPECT_THAT(differ([](LayerParams& l) { l.o.rows = 8; }), all_after_the_change);
  EXPECT_THAT(differ([](LayerParams& l) { l.router.cols = 8; }), all_after_the_change);
  EXPECT_THAT(differ([](LayerParams& l) { l.mlp_norm = nullptr; }), all_after_the_change);
  EXPECT_THAT(differ([](LayerParams& l) { l.mlp_norm += 4; }), all_after_the_change);
  EXPECT_THAT(differ([](LayerParams& l) { l.q.rows = 16; }), all_after_the_change);
  EXPECT_THAT(differ([](LayerParams& l) { std::swap(l.gate, l.up); }), all_after_the_change);
  EXPECT_THAT(differ([](LayerParams& l) { l.kv.dtype = DType::kFloat8; }), all_after_the_change);
  EXPECT_THAT(differ([](LayerParams& l) { l.rotary.dim = 2; }), all_after_the_change);
  EXPECT_THAT(differ([](LayerParams& l) { l.attention.scale = 2; }), all_after_the_change);
  EXPECT_THAT(differ([](LayerParams& l) { l.activation = Activation::kGeluTanh; }),
              all_after_the_change);
  // Where it is, and in which group of layers, is no such thing.
  const auto as_alike = ElementsAre(true, false, false, false, false, false, true);
  EXPECT_THAT(differ([](LayerParams& l) { l.mlp_norm += 64; }), as_alike);
  EXPECT_THAT(differ([](LayerParams& l) { l.kv.group = 1; }), as_alike);
}

}  // namespace
}  // namespace sirocco
