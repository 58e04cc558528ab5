// Measuring on the CPU: what is run, counted and summed up. Times are the machine's own.
#include "server/bench/measure.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cpu/cpu_device.h"
#include "server/bench/floor.h"
#include "server/bench/operation_bytes.h"
#include "server/bench/stages.h"
#include "server/bench/tune.h"
#include "server/bench/workload.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

constexpr MeasureOptions kMeasure = {
    .prompt_length = 37, .output_length = 9, .repeat = 3, .seed = 5};
constexpr int32_t kBatch = 3;

ExecutorOptions Options(Mode mode, int32_t batch = kBatch) {
  ExecutorOptions options;
  options.mode = mode;
  options.max_batch_size = batch;
  options.max_length = kMeasure.prompt_length + kMeasure.output_length;
  options.prefill_chunk_size = 50;
  for (const LayerGroup& group : RandomModelDescriptor().groups) {
    options.kv_blocks.push_back(static_cast<int32_t>(
        BlocksOfWorkload(group, options, batch, kMeasure.prompt_length, kMeasure.output_length)));
  }
  return options;
}

TEST(WorkloadTest, ChunksCoverEveryPromptOnceAndBlocksAreDistinct) {
  const ExecutorOptions options = Options(Mode::kEager);
  const Workload workload(RandomModelDescriptor(), options, kBatch, kMeasure.prompt_length,
                          kMeasure.output_length, 1);
  const Workload::Prompts& prompts = workload.prompts();
  std::map<int32_t, int32_t> done;  // by lane
  std::map<int32_t, int> samples;
  for (const auto& step : prompts.steps) {
    int32_t rows = 0;
    for (const PrefillChunk& chunk : step) {
      EXPECT_EQ(chunk.first_position, done[chunk.lane]);
      done[chunk.lane] += chunk.count;
      samples[chunk.lane] += chunk.sample;
      EXPECT_EQ(chunk.sample, done[chunk.lane] == kMeasure.prompt_length);
      rows += chunk.count;
    }
    EXPECT_LE(rows, options.prefill_chunk_size);
  }
  EXPECT_EQ(prompts.steps.size(), 3u);  // 111 rows in steps of 50
  for (int32_t lane = 0; lane < kBatch; ++lane) {
    EXPECT_EQ(done[lane], kMeasure.prompt_length);
    EXPECT_EQ(samples[lane], 1);
  }
  std::set<std::pair<int32_t, int32_t>> blocks;  // group, physical
  for (const auto& updates : prompts.updates) {
    for (const BlockUpdate& update : updates) {
      EXPECT_LT(update.physical, options.kv_blocks[update.group]);
      EXPECT_TRUE(blocks.emplace(update.group, update.physical).second);
    }
  }
  EXPECT_EQ(blocks.size(), 2u * options.kv_blocks[0]);  // none is left over
}

TEST(WorkloadTest, WindowsTakeNoMoreBlocksThanTheyNeed) {
  ExecutorOptions options = Options(Mode::kEager);
  options.prefill_chunk_size = 8;
  const ModelDescriptor d = RandomModelDescriptor();
  const Workload workload(d, options, kBatch, 300, 50, 1);
  std::vector<std::set<int32_t>> blocks(2);
  for (const auto& updates : workload.prompts().updates) {
    for (const BlockUpdate& update : updates) blocks[update.group].insert(update.physical);
  }
  for (int group = 0; group < 2; ++group) {
    const auto needed = BlocksOfWorkload(d.groups[group], options, kBatch, 300, 50);
    EXPECT_EQ(static_cast<int64_t>(blocks[group].size()), needed);
    EXPECT_EQ(*blocks[group].rbegin(), needed - 1);
  }
  EXPECT_EQ(blocks[0].size(), kBatch * 22u);
  EXPECT_EQ(blocks[1].size(), kBatch * 3u);  // a window of 24, a chunk of 8
}

class MeasureTest : public ::testing::TestWithParam<Mode> {
 protected:
  MeasureTest()
      : device_(CreateCpuDevice(2).value()),
        model_(MakeRandomModel(*device_, DType::kFloat32, 3).value()) {}

  std::unique_ptr<Executor> Make(Device& device) {
    auto executor =
        Executor::Create(device, model_.descriptor, model_.weights, Options(GetParam()));
    EXPECT_TRUE(executor.ok()) << executor.status();
    return *std::move(executor);
  }

  std::unique_ptr<Device> device_;
  RandomModel model_;
  ExpertCounter none_;
};

TEST_P(MeasureTest, CountsWhatItRan) {
  const std::unique_ptr<Executor> executor = Make(*device_);
  const auto m = Measure(*executor, model_.descriptor, model_.weights, kBatch, kMeasure, none_);
  ASSERT_TRUE(m.ok()) << m.status();
  EXPECT_EQ(m->batch, kBatch);
  EXPECT_EQ(m->PrefillTokens(), kBatch * 37);
  EXPECT_EQ(m->decode_steps, 8);
  EXPECT_GT(m->prefill_seconds, 0);
  EXPECT_GT(m->decode_seconds, 0);
  EXPECT_GT(m->device_decode_seconds, 0);
  EXPECT_LE(m->device_decode_seconds, m->decode_seconds);
  // A device that does not run ahead does its work in Launch.
  EXPECT_EQ(m->prefill_steps, 3);  // 111 rows in steps of 50
  EXPECT_GT(m->device_prefill_seconds, 0);
  EXPECT_LE(m->device_prefill_seconds, m->launch_prefill_seconds);
  EXPECT_LE(m->launch_prefill_seconds, m->prefill_seconds);
  EXPECT_LE(m->device_decode_seconds, m->launch_decode_seconds);
  EXPECT_LE(m->launch_decode_seconds, m->decode_seconds);
  EXPECT_DOUBLE_EQ(m->DecodeTokensPerSecond() * m->StepSeconds(), kBatch);
  // Contexts of 38 to 45 tokens, a window of 24 in one layer of three.
  const ModelDescriptor& d = model_.descriptor;
  const uint64_t token = 2 * d.kv_heads * d.head_dim * sizeof(float);
  uint64_t kv = 0;
  for (uint64_t context = 38; context <= 45; ++context) kv += token * (2 * context + 24);
  EXPECT_EQ(m->floor_bytes, FloorWeightBytes(model_.weights) + kBatch * (kv / 8));
}

TEST_P(MeasureTest, ALaterRunMayStartAfterThePrompts) {
  const std::unique_ptr<Executor> executor = Make(*device_);
  const Workload workload(model_.descriptor, executor->options(), kBatch, 37, 9, 5);
  ASSERT_TRUE(workload.Start(*executor, false).ok());
  ASSERT_TRUE(RunPrompts(*executor, workload).ok());
  const auto decode = [&] {
    const auto result = executor->Decode({.lanes = workload.lanes()});
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? result->sampled[1].token_id : -1;
  };
  ASSERT_TRUE(workload.Start(*executor, true).ok());
  const int32_t first = decode();
  decode();
  // The same prompt and token after it give the same answer.
  ASSERT_TRUE(workload.Start(*executor, true).ok());
  EXPECT_EQ(decode(), first);
}

TEST_P(MeasureTest, StagesAreTheWholeStep) {
  if (UsesGraphs(GetParam())) GTEST_SKIP() << "a recording has no operations to time";
  StageTimer timer(*device_);
  const std::unique_ptr<Executor> executor = Make(timer);
  const auto stages =
      MeasureStages(timer, *executor, model_.descriptor, model_.weights, kBatch, kMeasure, none_);
  ASSERT_TRUE(stages.ok()) << stages.status();
  EXPECT_EQ(stages->prefill_rows, 50);
  for (const std::vector<Stage>* step : {&stages->decode, &stages->prefill}) {
    std::set<std::string> names;
    for (const Stage& stage : *step) {
      EXPECT_GT(stage.seconds, 0) << stage.name;
      EXPECT_TRUE(names.insert(stage.name).second) << stage.name;
    }
  }
  // Weights are read once, and the KV of every layer, however the operations are cut.
  uint64_t bytes = 0, attention = 0;
  for (const Stage& stage : stages->decode) {
    if (stage.name == "embed") continue;
    const bool is_attention = stage.name == "attention" || stage.name == "qkv_attention";
    (is_attention ? attention : bytes) += stage.bytes;
    if (is_attention) {
      EXPECT_EQ(stage.operations, 3);
    }
  }
  EXPECT_EQ(bytes, FloorWeightBytes(model_.weights));
  EXPECT_EQ(attention, kBatch * FloorKvBytes(model_.descriptor, 37 + 4, DType::kFloat32));
}

INSTANTIATE_TEST_SUITE_P(Modes, MeasureTest, ::testing::ValuesIn(kAllModes),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

// Of experts a step reads those that its rows took, and its floor has no others.
TEST(ExpertCounterTest, CountsWhatRowsTook) {
  const std::unique_ptr<Device> device = CreateCpuDevice(2).value();
  const RandomModel model =
      MakeRandomModel(*device, DType::kFloat32, 3, RandomNorms::kExperts).value();
  ExecutorOptions options = Options(Mode::kLayer);
  auto experts = ExpertCounter::Create(*device, model.descriptor, options);
  ASSERT_TRUE(experts.ok()) << experts.status();
  ASSERT_TRUE(experts->counts());
  StageTimer timer(*device);
  const auto executor = Executor::Create(timer, model.descriptor, model.weights, options);
  ASSERT_TRUE(executor.ok()) << executor.status();
  const auto m = Measure(**executor, model.descriptor, model.weights, kBatch, kMeasure, *experts);
  ASSERT_TRUE(m.ok()) << m.status();
  EXPECT_EQ(experts->ShareOfLanes(1, kMeasure.prompt_length), 2.0 / 6);
  EXPECT_GT(m->share_of_experts, 2.0 / 6);  // three rows seldom take the same two
  EXPECT_LE(m->share_of_experts, 1);
  const double part = experts->ShareOfPositions(0, 0, kMeasure.prompt_length);
  EXPECT_GT(part, experts->ShareOfPositions(0, 0, 1));
  const uint64_t all = FloorWeightBytes(model.weights);
  uint64_t mlps = 0;
  for (const LayerWeights& layer : model.weights.layers) {
    mlps += BytesOf(layer.gate) + BytesOf(layer.up) + BytesOf(layer.down);
  }
  const uint64_t least = all - mlps + static_cast<uint64_t>(m->share_of_experts * mlps);
  EXPECT_NEAR(FloorWeightBytes(model.weights, m->share_of_experts), least, 3);

  const auto stages =
      MeasureStages(timer, **executor, model.descriptor, model.weights, kBatch, kMeasure, *experts);
  ASSERT_TRUE(stages.ok()) << stages.status();
  const auto stage = std::find_if(stages->decode.begin(), stages->decode.end(),
                                  [](const Stage& s) { return s.name == "experts"; });
  ASSERT_NE(stage, stages->decode.end());
  EXPECT_EQ(stage->operations, 3);
  EXPECT_GT(stage->bytes, 3 * BytesOf(model.weights.layers[0].router) + mlps * 2 / 6);
  EXPECT_LT(stage->bytes, 3 * BytesOf(model.weights.layers[0].router) + mlps);
}

// A device with a table, of which every product's answer is its shape.
class Tunable final : public ForwardingDevice {
 public:
  explicit Tunable(Device& device) : ForwardingDevice(device) {}
  absl::StatusOr<std::vector<std::string>> TuneProducts(
      std::span<const MatMulParams> products) override {
    for (const MatMulParams& p : products) asked.push_back(p);
    return std::vector<std::string>{"entry"};
  }

  std::vector<MatMulParams> asked;
};

TEST(TuneTest, EveryProductInEveryNumberOfRowsThatATableTellsApart) {
  const auto cpu = CreateCpuDevice(1).value();
  const RandomModel model = MakeRandomModel(*cpu, DType::kFloat32, 3).value();
  Tunable device(*cpu);
  StageTimer timer(device);
  constexpr int32_t kRows = 50;
  const auto executor =
      Executor::Create(timer, model.descriptor, model.weights, Options(Mode::kEager, kRows));
  ASSERT_TRUE(executor.ok()) << executor.status();
  const auto entries = TuneModel(device, timer, **executor, model.descriptor, kRows, kMeasure);
  ASSERT_TRUE(entries.ok()) << entries.status();
  EXPECT_EQ(*entries, std::vector<std::string>{"entry"});
  std::map<const void*, std::set<int32_t>> rows;  // by weight
  for (const MatMulParams& p : device.asked) rows[p.weight.data].insert(p.rows);
  // A batch of 50 rows: 16, 32 and all 50. The prefill's operations are fused; see below.
  EXPECT_EQ(rows[model.weights.layers[2].down.data], (std::set<int32_t>{16, 32, 50}));
  EXPECT_EQ(rows[model.weights.head.data], (std::set<int32_t>{16, 32, 50}));
  EXPECT_EQ(rows.size(), 3u * 7 + 1);
  // The same shape in the same number of rows stands together.
  std::set<std::tuple<int32_t, int32_t, DType, int32_t>> ended;
  for (size_t i = 1; i < device.asked.size(); ++i) {
    const auto key = [&](const MatMulParams& p) {
      return std::tuple(p.weight.rows, p.weight.cols, p.out.dtype, p.rows);
    };
    if (key(device.asked[i]) != key(device.asked[i - 1])) ended.insert(key(device.asked[i - 1]));
    EXPECT_EQ(ended.count(key(device.asked[i])), 0u);
  }
}

// Of fused operations the CPU makes no products; the prefill is as in every mode.
TEST(TuneTest, AFusedPlanAddsItsOwnProducts) {
  const auto cpu = CreateCpuDevice(1).value();
  const RandomModel model = MakeRandomModel(*cpu, DType::kFloat32, 3).value();
  Tunable device(*cpu);
  StageTimer timer(device);
  const auto executor =
      Executor::Create(timer, model.descriptor, model.weights, Options(Mode::kDecoder));
  ASSERT_TRUE(executor.ok()) << executor.status();
  const auto entries = TuneModel(device, timer, **executor, model.descriptor, kBatch, kMeasure);
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(device.asked.size(), 1u);
  EXPECT_EQ(device.asked[0].weight.data, model.weights.head.data);
}

TEST(TuneTest, NewEntriesReplaceThoseOfTheSameShape) {
  const std::string table =
      "// Entries.\n"
      "{\"GPU B\", {16, 8, 8}, {1, 2}},\n"
      "{\"GPU A\", {16, 8, 8}, {1, 2}},\n";
  EXPECT_EQ(MergeKernelTable(
                table, {"{\"GPU A\", {16, 8, 8}, {3, 4}},", "{\"GPU A\", {32, 8, 8}, {5, 6}},"}),
            "// Entries.\n"
            "{\"GPU A\", {16, 8, 8}, {3, 4}},\n"
            "{\"GPU A\", {32, 8, 8}, {5, 6}},\n"
            "{\"GPU B\", {16, 8, 8}, {1, 2}},\n");
  EXPECT_EQ(MergeKernelTable("", {"{\"GPU\", {16}, {1}},"}), "{\"GPU\", {16}, {1}},\n");
}

TEST(MedianTest, IsTheMiddleOne) {
  EXPECT_EQ(Median({3}), 3);
  EXPECT_EQ(Median({9, 1, 4}), 4);
  EXPECT_EQ(Median({8, 1, 2, 4}), 3);
  EXPECT_EQ(Median({}), 0);
}

}  // namespace
}  // namespace sirocco
