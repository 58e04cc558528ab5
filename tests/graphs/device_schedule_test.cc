// A batch that changes while it runs, on every device: the logits of every step against each
// sequence alone. Where a device accumulates in one order whatever the rows, by every bit; else by
// teacher forcing on what the schedule generated, against the CPU backend in float32, within the
// tolerances of tests/goldens/README.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/forwarding_device.h"
#include "tests/graphs/deferring_device.h"
#include "tests/graphs/schedule.h"
#include "tests/kernels/devices.h"
#include "tests/testing/random_model.h"
#include "tests/testing/tolerance.h"

namespace sirocco {
namespace {

constexpr int32_t kVocabulary = 131;

absl::StatusOr<std::unique_ptr<Device>> Late(DeferringDevice::Pace pace) {
  absl::StatusOr<std::unique_ptr<Device>> cpu = CreateCpuDevice(2);
  if (!cpu.ok()) return cpu.status();
  return std::make_unique<DeferringDevice>(*std::move(cpu), pace, /*seed=*/1);
}

// Joins products in pairs up to four rows, and leaves more as they are.
class InPairs final : public ForwardingDevice {
 public:
  explicit InPairs(std::unique_ptr<Device> behind)
      : ForwardingDevice(*behind), owned_(std::move(behind)) {}
  int32_t paired_rows() const override { return 4; }

 private:
  const std::unique_ptr<Device> owned_;
};

absl::StatusOr<std::unique_ptr<Device>> Paired() {
  absl::StatusOr<std::unique_ptr<Device>> cpu = CreateCpuDevice(2);
  if (!cpu.ok()) return cpu.status();
  return std::make_unique<InPairs>(*std::move(cpu));
}

// The devices of the operations' tests, two that are late, and one whose products come in pairs.
std::vector<TypedCase> AllCases() {
  const DeviceCase own[] = {
      {"cpu_late", [] { return Late(DeferringDevice::Pace::kWhenWaitedFor); }, DType::kFloat32,
       true},
      {"cpu_any_time", [] { return Late(DeferringDevice::Pace::kAnyTime); }, DType::kFloat32, true},
      {"cpu_in_pairs", Paired, DType::kFloat32, true},
  };
  std::vector<TypedCase> cases = TypedCases();
  for (const DeviceCase& device : own) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) cases.push_back({device, dtype});
  }
  return cases;
}

ExecutorOptions SmallOptions(const Device& device, Mode mode, DType dtype, DType kv) {
  ExecutorOptions options;
  options.mode = mode;
  options.max_batch_size = 6;
  options.max_length = 128;
  options.prefill_chunk_size = 40;
  options.block_size = 8;
  options.kv_blocks = {6 * 16 + 3, 6 * 16 + 9};
  options.kv_dtype = kv;
  options.activation_dtype = device.ActivationDType(dtype);
  options.prefill_as_decode = device.prefill_as_decode();
  options.fill_prefill = true;
  options.keep_logits = true;
  return options;
}

// All memory that was ever asked of a device.
struct Taken {
  explicit Taken(const Device& device)
      : allocations(device.counters().allocations), host_bytes(device.counters().host_bytes) {
    for (int use = 0; use < kMemoryUses; ++use) bytes[use] = device.counters().bytes[use];
  }
  friend bool operator==(const Taken&, const Taken&) = default;

  uint64_t allocations, host_bytes;
  std::array<uint64_t, kMemoryUses> bytes;
};

// A device, a model on it and an executor.
struct Rig {
  Rig(absl::StatusOr<std::unique_ptr<Device>> made, Mode mode, DType dtype, DType kv,
      RandomNorms norms) {
    EXPECT_TRUE(made.ok()) << made.status();
    if (!made.ok()) return;
    device = *std::move(made);
    absl::StatusOr<RandomModel> random = MakeRandomModel(*device, dtype, 5, norms);
    EXPECT_TRUE(random.ok()) << random.status();
    if (!random.ok()) return;
    model = *std::move(random);
    auto created = Executor::Create(*device, model.descriptor, model.weights,
                                    SmallOptions(*device, mode, dtype, kv));
    EXPECT_TRUE(created.ok()) << created.status();
    if (created.ok()) executor = *std::move(created);
  }

  std::unique_ptr<Device> device;
  RandomModel model;
  std::unique_ptr<Executor> executor;
};

class DeviceScheduleTest
    : public ::testing::TestWithParam<std::tuple<TypedCase, Mode, RandomNorms>> {
 protected:
  void SetUp() override {
    const auto& [typed, mode, norms] = GetParam();
    rig_ = std::make_unique<Rig>(typed.device.create(), mode, typed.dtype, typed.kv, norms);
    ASSERT_NE(rig_->executor, nullptr);
  }

  std::vector<TestOutput> Run(uint64_t seed) {
    absl::StatusOr<std::vector<TestOutput>> outputs =
        RunSchedule(*rig_->executor, sequences_, seed);
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs.ok() ? *std::move(outputs) : std::vector<TestOutput>(sequences_.size());
  }

  const std::vector<TestSequence> sequences_ = RandomSequences(14, kVocabulary, 3);
  std::unique_ptr<Rig> rig_;
};

std::string ScheduleName(const testing::TestParamInfo<DeviceScheduleTest::ParamType>& info) {
  return CaseName(std::get<0>(info.param)) + "_" + std::string(NameOf(std::get<1>(info.param))) +
         (std::get<2>(info.param) == RandomNorms::kHeads ? "_head_norms" : "") +
         (std::get<2>(info.param) == RandomNorms::kAll ? "_all_norms" : "") +
         (std::get<2>(info.param) == RandomNorms::kPost ? "_post_norms" : "") +
         (std::get<2>(info.param) == RandomNorms::kExperts ? "_experts" : "") +
         (std::get<2>(info.param) == RandomNorms::kWide ? "_wide" : "");
}

INSTANTIATE_TEST_SUITE_P(All, DeviceScheduleTest,
                         ::testing::Combine(::testing::ValuesIn(AllCases()),
                                            ::testing::ValuesIn(kAllModes),
                                            ::testing::Values(RandomNorms::kFew)),
                         ScheduleName);
INSTANTIATE_TEST_SUITE_P(Norms, DeviceScheduleTest,
                         ::testing::Combine(::testing::ValuesIn(AllCases()),
                                            ::testing::ValuesIn(kAllModes),
                                            ::testing::Values(RandomNorms::kHeads,
                                                              RandomNorms::kAll,
                                                              RandomNorms::kPost)),
                         ScheduleName);

// Where a choice near a tie is the same as the reference's.
std::vector<TypedCase> ExpertCases() {
  std::vector<TypedCase> cases;
  for (const TypedCase& typed : TypedCases()) {
    if (typed.device.invariant || typed.dtype == DType::kFloat32) cases.push_back(typed);
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Experts, DeviceScheduleTest,
                         ::testing::Combine(::testing::ValuesIn(ExpertCases()),
                                            ::testing::ValuesIn(kAllModes),
                                            ::testing::Values(RandomNorms::kExperts)),
                         ScheduleName);

INSTANTIATE_TEST_SUITE_P(Wide, DeviceScheduleTest,
                         ::testing::Combine(::testing::ValuesIn(BatchInvariantCases()),
                                            ::testing::ValuesIn(kAllModes),
                                            ::testing::Values(RandomNorms::kWide)),
                         ScheduleName);

INSTANTIATE_TEST_SUITE_P(Float8, DeviceScheduleTest,
                         ::testing::Combine(::testing::ValuesIn(Float8Cases()),
                                            ::testing::ValuesIn(kAllModes),
                                            ::testing::Values(RandomNorms::kFew)),
                         ScheduleName);

void ExpectEveryBit(const std::vector<TestSequence>& sequences,
                    const std::vector<TestOutput>& outputs, Executor& alone) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const absl::StatusOr<TestOutput> reference = RunAlone(alone, sequences[i]);
    ASSERT_TRUE(reference.ok()) << reference.status();
    EXPECT_EQ(outputs[i].Tokens(), reference->Tokens()) << "sequence " << i;
    EXPECT_TRUE(SameBits(outputs[i], *reference)) << "sequence " << i;
  }
}

void ExpectWithinTolerances(const std::vector<TestSequence>& sequences,
                            const std::vector<TestOutput>& outputs, Executor& float32,
                            const TypedCase& typed) {
  const bool exact = typed.dtype == DType::kFloat32 && typed.kv == DType::kFloat32;
  std::vector<double> errors;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const size_t tokens = outputs[i].scores.size();
    ASSERT_EQ(tokens, static_cast<size_t>(sequences[i].generate));
    const absl::StatusOr<TestOutput> reference =
        RunForced(float32, sequences[i], outputs[i].Tokens());
    ASSERT_TRUE(reference.ok()) << reference.status();
    for (size_t t = 0; t < tokens; ++t) {
      const auto row = [&](const TestOutput& output) {
        return std::span<const float>(output.logits).subspan(t * kVocabulary, kVocabulary);
      };
      if (exact) {
        EXPECT_LT(LargestLogprobError(row(outputs[i]), row(*reference)), kLogprobTolerance)
            << "sequence " << i << " token " << t;
      } else {
        errors.push_back(RelativeError(row(outputs[i]), row(*reference)));
      }
    }
  }
  if (exact) return;
  const Tolerance tolerance = typed.kv == DType::kFloat8
                                  ? kFloat8KvTolerance
                                  : ToleranceOf(typed.dtype, typed.device.activations);
  std::sort(errors.begin(), errors.end());
  EXPECT_LT(errors[errors.size() / 2], tolerance.median);
  EXPECT_LT(errors.back(), tolerance.largest);
}

// What is drawn follows from the logits: the highest, where a sequence asks for nothing else.
void ExpectGreedyTokens(const std::vector<TestSequence>& sequences,
                        const std::vector<TestOutput>& outputs) {
  int greedy = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Lane& lane = sequences[i].params;
    if (lane.temperature > 0 || (lane.flags & kLanePenalties) != 0) continue;
    for (size_t t = 0; t < outputs[i].scores.size(); ++t) {
      const auto logits =
          std::span<const float>(outputs[i].logits).subspan(t * kVocabulary, kVocabulary);
      EXPECT_EQ(outputs[i].scores[t].token_id, static_cast<int32_t>(Best(logits)));
      ++greedy;
    }
  }
  EXPECT_GT(greedy, 20);
}

TEST_P(DeviceScheduleTest, EachSequenceIsAsItWouldBeAlone) {
  const auto& [typed, mode, norms] = GetParam();
  const Rig alone =
      typed.device.invariant
          ? Rig(CreateCpuDevice(1), Mode::kEager, typed.dtype, typed.kv, norms)
          : Rig(CreateCpuDevice(1), Mode::kEager, DType::kFloat32, DType::kFloat32, norms);
  ASSERT_NE(alone.executor, nullptr);
  // Where fused operations round otherwise than eager ones, a mode agrees with itself alone.
  std::unique_ptr<Rig> own;
  if (typed.device.batch_invariant && !typed.device.invariant) {
    own = std::make_unique<Rig>(typed.device.create(), mode, typed.dtype, typed.kv, norms);
    ASSERT_NE(own->executor, nullptr);
  }
  const uint64_t plans = rig_->executor->stats().plan_builds;
  // What never grows must have been counted before.
  const uint64_t recordings = rig_->device->counters().recordings;
  const Taken before(*rig_->device);
  ASSERT_GT(before.allocations, 0u);
  ASSERT_GT(before.host_bytes, 0u);
  for (const MemoryUse use :
       {MemoryUse::kWeights, MemoryUse::kWorkspace, MemoryUse::kLanes, MemoryUse::kKv}) {
    ASSERT_GT(before.bytes[static_cast<int>(use)], 0u) << NameOf(use);
  }
  const uint64_t seeds = norms == RandomNorms::kFew ? 3 : 1;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    const std::vector<TestOutput> outputs = Run(seed);
    if (typed.device.invariant) {
      ExpectEveryBit(sequences_, outputs, *alone.executor);
    } else {
      ExpectWithinTolerances(sequences_, outputs, *alone.executor, typed);
      if (own != nullptr) ExpectEveryBit(sequences_, outputs, *own->executor);
    }
    ExpectGreedyTokens(sequences_, outputs);
  }
  EXPECT_EQ(rig_->executor->stats().plan_builds, plans);
  EXPECT_EQ(rig_->executor->stats().decode_allocations, 0u);
  EXPECT_EQ(rig_->device->counters().recordings, recordings);
  EXPECT_TRUE(Taken(*rig_->device) == before) << "memory was asked for while serving";
}

TEST_P(DeviceScheduleTest, TheSameScheduleGivesTheSameBits) {
  const std::vector<TestOutput> first = Run(7);
  const std::vector<TestOutput> second = Run(7);
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_TRUE(SameBits(first[i], second[i])) << "sequence " << i;
  }
}

// A mode with graphs and the same without: the same work in the same order.
class TwinTest : public ::testing::TestWithParam<DeviceScheduleTest::ParamType> {
 protected:
  static Mode TwinOf(Mode mode) {
    return mode == Mode::kDecoderGraph ? Mode::kDecoder : Mode::kLayer;
  }
};

INSTANTIATE_TEST_SUITE_P(
    All, TwinTest,
    ::testing::Combine(::testing::ValuesIn(AllCases()),
                       ::testing::Values(Mode::kDecoderGraph, Mode::kLayerGraph),
                       ::testing::Values(RandomNorms::kFew, RandomNorms::kAll, RandomNorms::kPost,
                                         RandomNorms::kExperts)),
    ScheduleName);

INSTANTIATE_TEST_SUITE_P(Float8, TwinTest,
                         ::testing::Combine(::testing::ValuesIn(Float8Cases()),
                                            ::testing::Values(Mode::kDecoderGraph,
                                                              Mode::kLayerGraph),
                                            ::testing::Values(RandomNorms::kFew)),
                         ScheduleName);

TEST_P(TwinTest, GraphsChangeNoBit) {
  const auto& [typed, mode, norms] = GetParam();
  const Rig graphs(typed.device.create(), mode, typed.dtype, typed.kv, norms);
  const Rig plain(typed.device.create(), TwinOf(mode), typed.dtype, typed.kv, norms);
  ASSERT_TRUE(graphs.executor != nullptr && plain.executor != nullptr);
  const std::vector<TestSequence> sequences = RandomSequences(14, kVocabulary, 8);
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    const auto replayed = RunSchedule(*graphs.executor, sequences, seed);
    const auto launched = RunSchedule(*plain.executor, sequences, seed);
    ASSERT_TRUE(replayed.ok()) << replayed.status();
    ASSERT_TRUE(launched.ok()) << launched.status();
    for (size_t i = 0; i < sequences.size(); ++i) {
      EXPECT_EQ((*replayed)[i].Tokens(), (*launched)[i].Tokens()) << "sequence " << i;
      EXPECT_TRUE(SameBits((*replayed)[i], (*launched)[i])) << "sequence " << i;
    }
  }
  const ExecutorStats& stats = graphs.executor->stats();
  const uint64_t parts = mode == Mode::kDecoderGraph ? 1 : 3;
  EXPECT_EQ(stats.graphs_captured, parts * graphs.executor->options().max_batch_size);
  uint64_t replays = 0;
  for (const std::atomic<uint64_t>& of_size : stats.replays) replays += of_size;
  EXPECT_GT(replays, 0u);
  for (const std::atomic<uint64_t>& of_size : plain.executor->stats().replays) {
    EXPECT_EQ(of_size, 0u);
  }
  // Prompts too: all steps are filled up, to 32 or 40 rows.
  const ExecutorStats& launched = plain.executor->stats();
  EXPECT_EQ(stats.prefill_graphs, 2u);
  EXPECT_GT(stats.prefill_replays, 0u);
  EXPECT_EQ(stats.prefill_launches, 0u);
  EXPECT_EQ(launched.prefill_replays, 0u);
  EXPECT_EQ(launched.prefill_launches, stats.prefill_replays);
  EXPECT_GT(stats.prefill_filling_rows, 0u);
  EXPECT_EQ(launched.prefill_filling_rows, stats.prefill_filling_rows);
}

}  // namespace
}  // namespace sirocco
