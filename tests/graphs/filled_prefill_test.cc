// Prompts of every length, filled up to the sizes of which there are recordings: the bits of the
// twin that launches them by operations, and what the CPU computes without filling.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/graphs/schedule.h"
#include "tests/kernels/devices.h"
#include "tests/testing/random_model.h"
#include "tests/testing/tolerance.h"

namespace sirocco {
namespace {

constexpr int32_t kVocabulary = 131;
constexpr int32_t kLongest = 140;
constexpr int32_t kChunk = 136;  // sizes 32, 64, 128 and this

struct Rig {
  Rig(absl::StatusOr<std::unique_ptr<Device>> made, Mode mode, DType dtype, DType kv, bool fill) {
    EXPECT_TRUE(made.ok()) << made.status();
    if (!made.ok()) return;
    device = *std::move(made);
    absl::StatusOr<RandomModel> random = MakeRandomModel(*device, dtype, 5, RandomNorms::kAll);
    EXPECT_TRUE(random.ok()) << random.status();
    if (!random.ok()) return;
    model = *std::move(random);
    ExecutorOptions options;
    options.mode = mode;
    options.max_batch_size = 2;
    options.max_length = kLongest + 4;
    options.prefill_chunk_size = kChunk;
    options.block_size = 8;
    options.kv_blocks = {40, 40};
    options.kv_dtype = kv;
    options.activation_dtype = device->ActivationDType(dtype);
    options.prefill_as_decode = device->prefill_as_decode();
    options.fill_prefill = fill;
    options.keep_logits = true;
    auto created = Executor::Create(*device, model.descriptor, model.weights, options);
    EXPECT_TRUE(created.ok()) << created.status();
    if (created.ok()) executor = *std::move(created);
  }

  std::unique_ptr<Device> device;
  RandomModel model;
  std::unique_ptr<Executor> executor;
};

class FilledPrefillTest : public ::testing::TestWithParam<std::tuple<TypedCase, Mode>> {};

std::string NameOfCase(const testing::TestParamInfo<FilledPrefillTest::ParamType>& info) {
  return CaseName(std::get<0>(info.param)) + "_" + std::string(NameOf(std::get<1>(info.param)));
}

INSTANTIATE_TEST_SUITE_P(All, FilledPrefillTest,
                         ::testing::Combine(::testing::ValuesIn(TypedCases()),
                                            ::testing::Values(Mode::kDecoderGraph,
                                                              Mode::kLayerGraph)),
                         NameOfCase);
INSTANTIATE_TEST_SUITE_P(Float8, FilledPrefillTest,
                         ::testing::Combine(::testing::ValuesIn(Float8Cases()),
                                            ::testing::Values(Mode::kDecoderGraph)),
                         NameOfCase);

TEST_P(FilledPrefillTest, EveryLengthIsAsItWouldBeUnfilled) {
  const auto& [typed, mode] = GetParam();
  const Mode twin_mode = mode == Mode::kDecoderGraph ? Mode::kDecoder : Mode::kLayer;
  const Rig graphs(typed.device.create(), mode, typed.dtype, typed.kv, true);
  const Rig twin(typed.device.create(), twin_mode, typed.dtype, typed.kv, true);
  const bool same = typed.device.invariant;
  const Rig reference(CreateCpuDevice(1), Mode::kEager, same ? typed.dtype : DType::kFloat32,
                      same ? typed.kv : DType::kFloat32, false);
  ASSERT_TRUE(graphs.executor && twin.executor && reference.executor);
  const DeviceCounters& counters = graphs.device->counters();
  const uint64_t allocations = counters.allocations, recordings = counters.recordings;
  ASSERT_GT(recordings, 4u);
  std::vector<double> errors;
  for (int32_t length = 1; length <= kLongest; ++length) {
    TestSequence sequence;
    for (int32_t i = 0; i < length; ++i) {
      sequence.prompt.push_back((7 * i + 3 * length) % kVocabulary);
    }
    sequence.params.top_p = sequence.params.repetition_penalty = 1;
    sequence.generate = 2;
    const auto replayed = RunAlone(*graphs.executor, sequence);
    const auto launched = RunAlone(*twin.executor, sequence);
    ASSERT_TRUE(replayed.ok()) << replayed.status();
    ASSERT_TRUE(launched.ok()) << launched.status();
    ASSERT_TRUE(SameBits(*replayed, *launched)) << length << " tokens";
    const auto expected = RunForced(*reference.executor, sequence, replayed->Tokens());
    ASSERT_TRUE(expected.ok()) << expected.status();
    if (same) {
      ASSERT_EQ(replayed->logits, expected->logits) << length << " tokens";
      continue;
    }
    for (size_t t = 0; t < 2; ++t) {
      const auto row = [&](const TestOutput& output) {
        return std::span<const float>(output.logits).subspan(t * kVocabulary, kVocabulary);
      };
      errors.push_back(RelativeError(row(*replayed), row(*expected)));
    }
  }
  if (!same) {
    const Tolerance tolerance = typed.kv == DType::kFloat8
                                    ? kFloat8KvTolerance
                                    : ToleranceOf(typed.dtype, typed.device.activations);
    std::ranges::sort(errors);
    EXPECT_LT(errors[errors.size() / 2], tolerance.median);
    EXPECT_LT(errors.back(), tolerance.largest);
  }
  EXPECT_EQ(counters.allocations, allocations);
  EXPECT_EQ(counters.recordings, recordings);
  // Prompts beyond kChunk take two steps.
  const ExecutorStats& stats = graphs.executor->stats();
  EXPECT_EQ(stats.prefill_graphs, 4u);
  EXPECT_EQ(stats.prefill_replays, uint64_t{kLongest} + (kLongest - kChunk));
  EXPECT_EQ(stats.prefill_launches, 0u);
  EXPECT_EQ(twin.executor->stats().prefill_launches, stats.prefill_replays);
  EXPECT_EQ(reference.executor->stats().prefill_filling_rows, 0u);
}

}  // namespace
}  // namespace sirocco
