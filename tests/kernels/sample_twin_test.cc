// Sampling and scoring against the CPU backend: the same ids under the same seeds, the same lanes
// afterwards, the same logprobs to rounding; over vocabularies that take several thread blocks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_device.h"
#include "tests/kernels/ops_test.h"

namespace sirocco {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kMaxLength = 24;

// A step: one more lane than rows, in another order.
struct Step {
  int32_t rows, vocab;
  std::vector<Lane> lanes;
  std::vector<int32_t> row_lane;
  std::vector<int32_t> history;
  std::vector<uint32_t> counts;
  std::vector<uint8_t> token_flags;
  std::vector<float> bias;
  std::vector<float> logits;

  Lane& LaneOf(int32_t row) { return lanes[row_lane[row]]; }
  float* LogitsOf(int32_t row) { return &logits[static_cast<size_t>(row) * vocab]; }
};

struct Outcome {
  std::vector<TokenScore> scores;
  std::vector<Lane> lanes;
  std::vector<int32_t> history;
  std::vector<uint32_t> counts;
};

// Greedy lanes under random logits. Histories repeat a few ids, so that n-grams recur; a fifth of
// the ids has been sampled, some are in the prompt, some may not come early.
Step MakeStep(int32_t rows, int32_t vocab, uint32_t seed, float scale = 5) {
  Values values(seed);
  Step step;
  step.rows = rows;
  step.vocab = vocab;
  step.row_lane = values.Permutation(rows + 1);
  step.row_lane.resize(rows);
  for (int32_t l = 0; l <= rows; ++l) {
    Lane lane = Lane();
    lane.length = 4 + values.Below(kMaxLength - 4);
    lane.top_p = 1;
    lane.repetition_penalty = 1;
    lane.seed = (uint64_t{seed} << 32) + static_cast<uint64_t>(values.Below(1 << 30));
    lane.index = static_cast<uint32_t>(values.Below(3));
    step.lanes.push_back(lane);
    for (int32_t i = 0; i < kMaxLength; ++i) {
      step.history.push_back(values.Below(std::min(vocab, 4)));
    }
    for (int32_t id = 0; id < vocab; ++id) {
      step.counts.push_back(values.Below(5) == 0 ? 1 + values.Below(3) : 0);
      step.token_flags.push_back(values.Below(4) == 0 ? values.Below(4) : 0);
      step.bias.push_back(values.Below(6) == 0 ? -kInfinity : values.Below(64) / 16.0f - 2);
    }
  }
  step.logits = values.Floats(int64_t{rows} * vocab, scale);
  return step;
}

Lanes Upload(Memory& memory, const Step& step) {
  Lanes lanes = {};
  lanes.lane = memory.Upload(step.lanes);
  lanes.history = memory.Upload(step.history);
  lanes.counts = memory.Upload(step.counts);
  lanes.token_flags = memory.Upload(step.token_flags);
  lanes.bias = memory.Upload(step.bias);
  lanes.max_lanes = static_cast<int32_t>(step.lanes.size());
  lanes.max_length = kMaxLength;
  lanes.vocab_size = step.vocab;
  return lanes;
}

Outcome Sample(Device& device, const Step& step) {
  Memory memory(device);
  SampleParams p;
  p.rows = step.rows;
  p.row_lane = memory.Upload(step.row_lane);
  p.lanes = Upload(memory, step);
  p.logits = memory.Activations(step.logits, DType::kFloat32, step.vocab);
  p.out = memory.Upload(std::vector<TokenScore>(step.rows, TokenScore{-1, 7, 7, 7, {7}, {7}}));
  EXPECT_TRUE(device.ops().Run(p).ok());
  EXPECT_TRUE(device.Synchronize().ok());
  return {memory.Download(p.out, step.rows),
          memory.Download(p.lanes.lane, static_cast<int64_t>(step.lanes.size())),
          memory.Download(p.lanes.history, static_cast<int64_t>(step.history.size())),
          memory.Download(p.lanes.counts, static_cast<int64_t>(step.counts.size()))};
}

void ExpectClose(float got, float want) {
  EXPECT_NEAR(got, want, 1e-5 * std::max(std::abs(want), 1e-6f));
}

void ExpectScore(const TokenScore& got, const TokenScore& want) {
  EXPECT_EQ(got.token_id, want.token_id);
  EXPECT_EQ(got.rank, want.rank);
  ExpectClose(got.logprob, want.logprob);
  EXPECT_EQ(got.top_count, want.top_count);
  for (int i = 0; i < kMaxTopLogprobs; ++i) {
    EXPECT_EQ(got.top_ids[i], want.top_ids[i]) << i;
    ExpectClose(got.top_logprobs[i], want.top_logprobs[i]);
  }
}

class SampleTwinTest : public OpsTest {
 protected:
  void ExpectTwins(const Step& step) {
    const Outcome got = Sample(device(), step);
    const Outcome want = Sample(*cpu_, step);
    for (int32_t r = 0; r < step.rows; ++r) {
      SCOPED_TRACE(testing::Message() << "row " << r);
      ExpectScore(got.scores[r], want.scores[r]);
    }
    const size_t bytes = step.lanes.size() * sizeof(Lane);
    EXPECT_EQ(std::memcmp(got.lanes.data(), want.lanes.data(), bytes), 0);
    EXPECT_EQ(got.history, want.history);
    EXPECT_EQ(got.counts, want.counts);
  }

  Device& cpu() { return *cpu_; }

 private:
  std::unique_ptr<Device> cpu_ = CreateCpuDevice(1).value();
};

// ---- Rows without options ------------------------------------------------------------------

TEST_P(SampleTwinTest, GreedyAndDrawnRows) {
  for (const int32_t vocab : {1, 3, 64, 1001, 4096, 4097, 5000, 8191, 12288}) {
    SCOPED_TRACE(vocab);
    Step step = MakeStep(4, vocab, 1);
    step.LaneOf(1).temperature = 1;
    step.LaneOf(2).temperature = 0.2f;
    step.LaneOf(3).temperature = 30;
    ExpectTwins(step);
  }
}

TEST_P(SampleTwinTest, ManyDraws) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    Step step = MakeStep(20, 4500, 100 + seed, 0.5f);
    for (Lane& lane : step.lanes) lane.temperature = 1 + static_cast<float>(seed);
    ExpectTwins(step);
  }
}

TEST_P(SampleTwinTest, ManyRows) {
  Step step = MakeStep(300, 100, 2);
  for (int32_t r = 0; r < step.rows; ++r) {
    Lane& lane = step.LaneOf(r);
    if (r % 2 == 1) lane.temperature = 1;
    if (r % 3 == 1) lane.flags |= kLaneLogprobs;
    if (r % 5 == 1) lane.top_k = 7;
    if (r % 7 == 1) lane.flags |= kLanePenalties;
    lane.presence_penalty = 1;
    lane.top_logprobs = r % 21;
  }
  ExpectTwins(step);
}

TEST_P(SampleTwinTest, ExtremeTemperatures) {
  for (const float temperature : {1e-45f, 1e-30f, 1e-4f, 1e4f, 1e30f, 3e38f}) {
    SCOPED_TRACE(temperature);
    Step step = MakeStep(3, 5000, 3);
    for (Lane& lane : step.lanes) lane.temperature = temperature;
    step.LaneOf(1).top_k = 50;
    step.LaneOf(2).top_p = 0.5f;
    ExpectTwins(step);
  }
}

TEST_P(SampleTwinTest, EqualLogits) {
  Step step = MakeStep(6, 9001, 4);
  std::fill(step.logits.begin(), step.logits.end(), -0.25f);
  for (int32_t id = 0; id < step.vocab; id += 2) step.LogitsOf(5)[id] = -0.0f;
  for (int32_t id = 1; id < step.vocab; id += 2) step.LogitsOf(5)[id] = 0.0f;
  for (int32_t r = 1; r < step.rows; ++r) step.LaneOf(r).temperature = 1;
  step.LaneOf(2).top_k = 4321;  // more than a list in shared memory would hold
  step.LaneOf(3).top_p = 0.5f;
  step.LaneOf(4).min_p = 1;
  for (Lane& lane : step.lanes) {
    lane.flags = kLaneLogprobs;
    lane.top_logprobs = kMaxTopLogprobs;
  }
  ExpectTwins(step);
}

TEST_P(SampleTwinTest, BrokenLogits) {
  const float broken[] = {std::nanf(""), kInfinity, -kInfinity, 3e38f, -3e38f, 1, -0.0f};
  for (uint32_t seed = 0; seed < 6; ++seed) {
    SCOPED_TRACE(seed);
    Step step = MakeStep(5, 4100 + seed, 5 + seed);
    Values values(seed);
    for (float& logit : step.logits) logit = broken[values.Below(seed < 3 ? 7 : 3)];
    std::fill(step.LogitsOf(4), step.LogitsOf(4) + step.vocab, std::nanf(""));
    for (int32_t r = 0; r < step.rows; ++r) {
      Lane& lane = step.LaneOf(r);
      lane.temperature = r == 0 ? 0 : 0.7f;
      lane.flags = r == 1 ? 0 : kLaneLogprobs | kLaneBias | kLanePenalties;
      lane.repetition_penalty = 1.5f;
      lane.top_logprobs = 5;
      if (r == 2) lane.top_k = 3;
      if (r == 3) lane.top_p = 0.9f;
    }
    ExpectTwins(step);
  }
}

// ---- Options and filters -------------------------------------------------------------------

using Change = void (*)(Lane&);

TEST_P(SampleTwinTest, EveryOptionAlone) {
  const Change changes[] = {
      [](Lane& lane) { lane.flags = kLaneBias; },
      [](Lane& lane) { lane.flags = kLanePenalties, lane.repetition_penalty = 1.7f; },
      [](Lane& lane) { lane.flags = kLanePenalties, lane.presence_penalty = -1.5f; },
      [](Lane& lane) { lane.flags = kLanePenalties, lane.frequency_penalty = 0.9f; },
      [](Lane& lane) { lane.flags = kLaneNgrams, lane.no_repeat_ngram = 2; },
      [](Lane& lane) { lane.flags = kLaneBarred, lane.min_length = kMaxLength; },
      [](Lane& lane) { lane.flags = kLaneLogprobs, lane.top_logprobs = 20; },
      [](Lane& lane) { lane.top_k = 1; },
      [](Lane& lane) { lane.top_k = 40; },
      [](Lane& lane) { lane.top_k = 3000; },
      [](Lane& lane) { lane.top_k = 5000; },
      [](Lane& lane) { lane.top_k = 1 << 30; },
      [](Lane& lane) { lane.top_p = 0; },
      [](Lane& lane) { lane.top_p = 1e-9f; },
      [](Lane& lane) { lane.top_p = 0.3f; },
      [](Lane& lane) { lane.top_p = 0.95f; },
      [](Lane& lane) { lane.top_p = 0.99999f; },
      [](Lane& lane) { lane.min_p = 1; },
      [](Lane& lane) { lane.min_p = 0.2f; },
      [](Lane& lane) { lane.min_p = 1e-20f; },
  };
  int number = 0;
  for (const Change change : changes) {
    SCOPED_TRACE(number++);
    Step step = MakeStep(4, 5000, 20 + number, 3);
    for (Lane& lane : step.lanes) change(lane);
    for (int32_t r = 1; r < step.rows; ++r) step.LaneOf(r).temperature = static_cast<float>(r);
    ExpectTwins(step);
  }
}

TEST_P(SampleTwinTest, OptionsThatLeaveNothingAreSkippedInOrder) {
  for (const int32_t vocab : {4, 4100}) {
    for (uint32_t barred = 0; barred < 8; ++barred) {  // what bars all ids
      SCOPED_TRACE(testing::Message() << vocab << " " << barred);
      Step step = MakeStep(2, vocab, 50 + barred);
      std::fill(step.bias.begin(), step.bias.end(), (barred & 1) != 0 ? -kInfinity : 0.5f);
      for (size_t i = 0; i < step.token_flags.size(); ++i) {
        if ((barred & 2) != 0 || i % 2 == 0) step.token_flags[i] = kTokenBarred;
        if ((barred & 4) != 0 && static_cast<int32_t>(i) % vocab > 3) step.bias[i] = -kInfinity;
      }
      for (Lane& lane : step.lanes) {  // histories have ids 0 ... 3, the more of them the longer
        lane.length = kMaxLength - 1;
        lane.min_length = kMaxLength;
        lane.flags = kLaneBias | kLaneNgrams | kLaneBarred | kLanePenalties;
        lane.no_repeat_ngram = 1;
      }
      step.LaneOf(1).temperature = 1;
      ExpectTwins(step);
    }
  }
}

// A number of `values` each time.
float Any(Values& values, std::initializer_list<float> choices) {
  return choices.begin()[values.Below(static_cast<int32_t>(choices.size()))];
}

void ChooseOptions(Values& values, int32_t vocab, Lane& lane) {
  lane.flags = static_cast<uint32_t>(values.Below(32));
  lane.temperature = Any(values, {0, 0.5f, 1, 2, 50});
  lane.top_k = values.Below(2) == 0 ? 0 : 1 + values.Below(values.Below(2) == 0 ? 5 : vocab + 9);
  lane.top_p = Any(values, {1, 1, 0.1f, 0.5f, 0.9f, 0.999f});
  lane.min_p = Any(values, {0, 0, 0.01f, 0.3f});
  lane.repetition_penalty = Any(values, {1, 1.3f, 0.6f});
  lane.presence_penalty = Any(values, {0, 0.4f, -1});
  lane.frequency_penalty = Any(values, {0, 0.1f, -0.7f});
  lane.no_repeat_ngram = values.Below(6);
  lane.min_length = values.Below(kMaxLength);
  lane.top_logprobs = values.Below(kMaxTopLogprobs + 1);
}

TEST_P(SampleTwinTest, AnyOptionsTogether) {
  Values values(60);
  for (uint32_t n = 0; n < 60; ++n) {
    SCOPED_TRACE(n);
    const int32_t vocab = n % 3 == 0 ? 1 + values.Below(40) : 1 + values.Below(9000);
    Step step = MakeStep(1 + values.Below(5), vocab, 70 + n, Any(values, {0.1f, 3, 20}));
    for (Lane& lane : step.lanes) ChooseOptions(values, vocab, lane);
    ExpectTwins(step);
  }
}

// Beside rows of other kinds.
TEST_P(SampleTwinTest, BeamsWithOptions) {
  for (const int32_t vocab : {1, 3, 64, 1001, 4097, 12288}) {
    SCOPED_TRACE(vocab);
    Step step = MakeStep(6, vocab, 40 + static_cast<uint32_t>(vocab));
    for (int32_t r = 1; r < step.rows; ++r) {
      Lane& lane = step.LaneOf(r);
      lane.top_logprobs = r * 4;
      lane.flags = kLaneBeam | (r % 2 != 0 ? kLanePenalties : kLaneBias) |
                   (r % 3 != 0 ? kLaneNgrams : kLaneBias);
      lane.no_repeat_ngram = 2;
      lane.repetition_penalty = 1.25f;
      lane.frequency_penalty = 0.5f;
    }
    ExpectTwins(step);
  }
}

TEST_P(SampleTwinTest, LargeVocabulary) {
  Step step = MakeStep(7, 70000, 7);
  for (int32_t r = 1; r < step.rows; ++r) step.LaneOf(r).temperature = 1;
  step.LaneOf(2).top_k = 30000;
  step.LaneOf(3).top_p = 0.9f;  // thousands of ids
  step.LaneOf(4).top_p = 0.5f;
  step.LaneOf(4).top_k = 20000;
  step.LaneOf(5).min_p = 0.05f;
  step.LaneOf(6).flags = kLaneBias | kLanePenalties | kLaneNgrams | kLaneLogprobs;
  step.LaneOf(6).no_repeat_ngram = 3;
  step.LaneOf(6).frequency_penalty = 0.5f;
  step.LaneOf(6).top_logprobs = kMaxTopLogprobs;
  step.LaneOf(0).flags = kLaneLogprobs;
  step.LaneOf(0).top_logprobs = kMaxTopLogprobs;
  ExpectTwins(step);
}

// Masses that are small each and three quarters of the whole together.
TEST_P(SampleTwinTest, ManyUnlikelyIds) {
  Step step = MakeStep(4, 70000, 13);
  std::fill(step.logits.begin(), step.logits.end(), -10.0f);
  for (int32_t r = 0; r < step.rows; ++r) step.LogitsOf(r)[100 * r] = 0;
  for (Lane& lane : step.lanes) {
    lane.temperature = 1;
    lane.top_p = 0.9f;
  }
  ExpectTwins(step);
}

TEST_P(SampleTwinTest, FullHistories) {
  Step step = MakeStep(4, 5000, 8);
  for (Lane& lane : step.lanes) {
    lane.length = kMaxLength;
    lane.flags = kLanePenalties;
  }
  step.LaneOf(0).flags = 0;
  step.LaneOf(1).flags = 0;
  step.LaneOf(1).temperature = 1;
  step.LaneOf(2).temperature = 1;
  ExpectTwins(step);
}

// ---- Scores --------------------------------------------------------------------------------

// The bits of a row's logprobs do not depend on how many rows there are.
TEST_P(SampleTwinTest, ScoresOfOneRowAreThoseAmongMany) {
  Step step = MakeStep(40, 9000, 9);
  for (Lane& lane : step.lanes) {
    lane.flags = kLaneLogprobs;
    lane.top_logprobs = kMaxTopLogprobs;
  }
  const Outcome many = Sample(device(), step);
  for (const int32_t row : {0, 17, 39}) {
    Step one = step;
    one.rows = 1;
    one.row_lane = {step.row_lane[row]};
    one.logits.assign(step.LogitsOf(row), step.LogitsOf(row) + step.vocab);
    const Outcome alone = Sample(device(), one);
    EXPECT_EQ(std::memcmp(&alone.scores[0], &many.scores[row], sizeof(TokenScore)), 0) << row;
  }
}

std::vector<TokenScore> Score(Device& device, const Step& step, int32_t top) {
  Memory memory(device);
  Values values(11);
  std::vector<int32_t> position;
  for (int32_t r = 0; r < step.rows; ++r) position.push_back(values.Below(kMaxLength - 1));
  ScoreTokensParams p;
  p.rows = step.rows;
  p.map = {memory.Upload(step.row_lane), memory.Upload(position)};
  p.lanes = Upload(memory, step);
  p.top = top;
  p.logits = memory.Activations(step.logits, DType::kFloat32, step.vocab);
  p.out = memory.Upload(std::vector<TokenScore>(step.rows, TokenScore{-1, 7, 7, 7, {7}, {7}}));
  EXPECT_TRUE(device.ops().Run(p).ok());
  EXPECT_TRUE(device.Synchronize().ok());
  return memory.Download(p.out, step.rows);
}

TEST_P(SampleTwinTest, GivenTokens) {
  for (const int32_t vocab : {1, 2, 19, 4096, 9999, 70000}) {
    SCOPED_TRACE(vocab);
    Step step = MakeStep(3, vocab, 12, 20);
    for (const int32_t top : {0, 1, 20}) {
      const std::vector<TokenScore> got = Score(device(), step, top);
      const std::vector<TokenScore> want = Score(cpu(), step, top);
      for (int32_t r = 0; r < step.rows; ++r) ExpectScore(got[r], want[r]);
    }
  }
}

// All devices but the one that they are compared with.
std::vector<DeviceCase> Others() {
  std::vector<DeviceCase> devices = Devices();
  std::erase_if(devices, [](const DeviceCase& device) { return device.name == "cpu_1_thread"; });
  return devices;
}

INSTANTIATE_TEST_SUITE_P(All, SampleTwinTest, ::testing::ValuesIn(Others()),
                         [](const auto& info) { return CaseName(info.param); });

}  // namespace
}  // namespace sirocco
