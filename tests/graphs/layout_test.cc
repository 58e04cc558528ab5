// Where what operations read and write lies: the KV cache, a layer's parameters, a step's buffers.
#include <gtest/gtest.h>

#include <cstddef>
#include <map>
#include <vector>

#include "graphs/executor.h"
#include "graphs/layer_params.h"
#include "graphs/step_buffers.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

// The layout: [block][layer][k, v][head][slot][dim], by group.
TEST(KvLayoutTest, LayersOfAGroupStandSideBySideInABlock) {
  ModelDescriptor d = RandomModelDescriptor();  // layers' groups: 0, 1, 0
  std::vector<std::byte> memory(1);
  std::byte* group0 = memory.data();
  const std::vector<KvLayer> kv = MakeKvLayers(d, 4, DType::kBFloat16, {group0, nullptr});
  const int64_t half = 2 * 4 * 16;  // kv_heads * slots * dim
  EXPECT_EQ(kv[0].data, group0);
  EXPECT_EQ(kv[1].data, nullptr);
  EXPECT_EQ(kv[2].data, group0 + 2 * half * 2);  // after k and v of layer 0, two bytes each
  EXPECT_EQ(kv[0].block_stride, 2 * 2 * half);
  EXPECT_EQ(kv[1].block_stride, 2 * half);
  EXPECT_EQ(kv[2].block_stride, 2 * 2 * half);
  for (const KvLayer& layer : kv) {
    EXPECT_EQ(layer.value_offset, half);
    EXPECT_EQ(layer.block_size, 4);
    EXPECT_EQ(layer.kv_heads, 2);
    EXPECT_EQ(layer.head_dim, 16);
  }
  EXPECT_EQ(kv[1].group, 1);
  EXPECT_EQ(KvBlockBytes(d, 0, 4, DType::kBFloat16), 2 * 2 * half * 2);
  EXPECT_EQ(KvBlockBytes(d, 1, 4, DType::kBFloat16), 2 * half * 2);
  EXPECT_EQ(KvBlockBytes(d, 1, 4, DType::kFloat32), 2 * half * 4);
}

// A scale a vector, behind the layer's v; 272 bytes, a multiple of 16.
TEST(KvLayoutTest, ScalesAreInTheBlocksOfAFloat8Cache) {
  ModelDescriptor d = RandomModelDescriptor();
  std::byte* const data = reinterpret_cast<std::byte*>(0x10000);
  const std::vector<KvLayer> kv = MakeKvLayers(d, 4, DType::kFloat8, {data, nullptr});
  const int64_t vectors = 2 * d.kv_heads * 4;
  const int64_t layer = vectors * (d.head_dim + 1);
  ASSERT_EQ(layer % 16, 0);
  EXPECT_EQ(kv[2].data, data + layer);
  EXPECT_EQ(kv[0].block_stride, 2 * layer);
  EXPECT_EQ(kv[0].value_offset, vectors / 2 * d.head_dim);
  EXPECT_EQ(KvBlockBytes(d, 0, 4, DType::kFloat8), 2 * layer);
  EXPECT_EQ(KvSlotBytes(d, DType::kFloat8), 2 * d.kv_heads * (d.head_dim + 1));
}

TEST(LayerParamsTest, WindowsAndRotariesAreDataOfALayer) {
  const ModelDescriptor d = RandomModelDescriptor();
  const ModelWeights weights = WeightShapes(d, DType::kFloat32);
  const std::vector<RotaryTable> rotaries = {{.dim = 16}, {.dim = 8}};
  const std::vector<LayerParams> layers = MakeLayerParams(
      d, weights, rotaries, MakeKvLayers(d, 4, DType::kFloat32, {nullptr, nullptr}));
  ASSERT_EQ(layers.size(), 3u);
  EXPECT_EQ(layers[0].attention.window, 0);
  EXPECT_EQ(layers[1].attention.window, 24);
  EXPECT_EQ(layers[2].attention.window, 0);
  EXPECT_EQ(layers[0].rotary.dim, 16);
  EXPECT_EQ(layers[1].rotary.dim, 8);
  EXPECT_EQ(layers[2].rotary.dim, 8);
  EXPECT_EQ(layers[2].attention.scale, 0.25f);
  EXPECT_EQ(layers[2].norm_epsilon, 1e-5f);
}

TEST(LayerParamsTest, ALayerKnowsThePostNormOfTheOneBefore) {
  const ModelDescriptor d = RandomModelDescriptor(RandomNorms::kAll);
  ModelWeights weights = WeightShapes(d, DType::kFloat32);
  const float norms[4 * 3] = {};
  for (int i = 0; i < 3; ++i) {
    weights.layers[i].q_norm = &norms[4 * i];
    weights.layers[i].k_norm = &norms[4 * i + 1];
    weights.layers[i].attention_post_norm = &norms[4 * i + 2];
    weights.layers[i].mlp_post_norm = &norms[4 * i + 3];
  }
  const std::vector<RotaryTable> rotaries(2);
  const std::vector<LayerParams> layers = MakeLayerParams(
      d, weights, rotaries, MakeKvLayers(d, 4, DType::kFloat32, {nullptr, nullptr}));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(layers[i].q_norm, &norms[4 * i]);
    EXPECT_EQ(layers[i].k_norm, &norms[4 * i + 1]);
    EXPECT_EQ(layers[i].attention_post_norm, &norms[4 * i + 2]);
    EXPECT_EQ(layers[i].mlp_post_norm, &norms[4 * i + 3]);
    EXPECT_EQ(layers[i].input_post_norm, i > 0 ? &norms[4 * i - 1] : nullptr);
  }
}

// No two buffers overlap, and all lie in the workspace.
TEST(StepBuffersTest, BuffersAreApart) {
  const ModelDescriptor d = RandomModelDescriptor(RandomNorms::kAll);
  ExecutorOptions options;
  options.max_batch_size = 40;
  options.prefill_chunk_size = 24;
  options.keep_logits = true;
  StepBuffers b;
  const uint64_t bytes = PlaceStepBuffers(d, options, nullptr, b);
  EXPECT_EQ(b.hidden.data, nullptr);
  EXPECT_EQ(b.hidden.width, 48);
  std::vector<std::byte> workspace(bytes);
  EXPECT_EQ(PlaceStepBuffers(d, options, workspace.data(), b), bytes);

  const int64_t rows = 40;  // the larger of batch and chunk; also of batch and kScoreRows
  std::map<std::byte*, uint64_t> places;
  auto add = [&](void* data, uint64_t size) {
    ASSERT_TRUE(places.emplace(static_cast<std::byte*>(data), size).second);
  };
  add(b.rows.lane, rows * 4);
  add(b.rows.position, rows * 4);
  add(b.updates.items, kBlockUpdates * sizeof(BlockUpdate));
  add(b.updates.count, 4);
  add(b.segments.items, 40 * sizeof(PrefillSegment));
  add(b.segments.count, 4);
  add(b.layer_counter, 4);
  for (const Rows& r : {b.hidden, b.sum, b.normed, b.q, b.attention, b.k, b.v, b.delta, b.gate,
                        b.up, b.activated, b.head_hidden, b.head_normed, b.logits, b.kept_logits}) {
    add(r.data, rows * r.width * 4);
  }
  add(b.head_index, rows * 4);
  add(b.head_rows.lane, rows * 4);
  add(b.head_rows.position, rows * 4);
  add(b.scores, rows * sizeof(TokenScore));
  add(b.identity, rows * 4);
  std::byte* end = workspace.data();
  for (const auto& [data, size] : places) {
    EXPECT_GE(data, end);
    end = data + size;
  }
  EXPECT_LE(end, workspace.data() + bytes);
}

}  // namespace
}  // namespace sirocco
