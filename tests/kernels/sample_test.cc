// The sampler's options one by one, and its order.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "tests/kernels/ops_test.h"
#include "tests/kernels/world.h"

namespace sirocco {
namespace {

using Floats = std::vector<float>;
using Ids = std::set<int32_t>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One lane and its row of logits.
class SampleTest : public OpsTest {
 protected:
  void Vocabulary(int32_t size, std::vector<int32_t> history = {0}) {
    size_ = size;
    history_ = std::move(history);
    lane_ = Lane();
    lane_.length = static_cast<int32_t>(history_.size());
    lane_.top_p = 1;
    lane_.repetition_penalty = 1;
    lane_.seed = 99;
    bias_.assign(size, 0);
    counts_.assign(size, 0);
    flags_.assign(size, 0);
  }

  // Lanes 1 ... `copies` alike, but for their seeds where they are given.
  void Upload(int32_t copies = 1, const std::vector<uint64_t>& seeds = {}) {
    constexpr int32_t kMaxLength = 40;
    World world(memory(), {.lanes = copies + 1, .max_length = kMaxLength, .vocab_size = size_}, 1);
    lanes_ = world.lanes();
    for (int64_t i = 1; i <= copies; ++i) {
      if (!seeds.empty()) lane_.seed = seeds[i - 1];
      Put(lanes_.lane + i, &lane_, 1);
      Put(lanes_.history + i * kMaxLength, history_.data(), history_.size());
      Put(lanes_.bias + i * size_, bias_.data(), bias_.size());
      Put(lanes_.counts + i * size_, counts_.data(), counts_.size());
      Put(lanes_.token_flags + i * size_, flags_.data(), flags_.size());
    }
  }

  TokenScore Sample(const Floats& logits) {
    Upload();
    SampleParams p;
    p.rows = 1;
    p.row_lane = memory().Upload(std::vector<int32_t>{1});
    p.lanes = lanes_;
    p.logits = memory().Activations(logits, DType::kFloat32, size_);
    p.out = memory().Upload(std::vector<TokenScore>(1));
    Execute(p);
    return memory().Download(p.out, 1)[0];
  }

  // All ids that come up under many seeds, in one step: what the filters leave.
  Ids Support(const Floats& logits, int32_t draws = 300) {
    std::vector<uint64_t> seeds(draws);
    std::iota(seeds.begin(), seeds.end(), 0);
    std::vector<int32_t> lanes(draws);
    std::iota(lanes.begin(), lanes.end(), 1);
    Floats all;
    for (int32_t i = 0; i < draws; ++i) all.insert(all.end(), logits.begin(), logits.end());
    Upload(draws, seeds);
    SampleParams p;
    p.rows = draws;
    p.row_lane = memory().Upload(lanes);
    p.lanes = lanes_;
    p.logits = memory().Activations(all, DType::kFloat32, size_);
    p.out = memory().Upload(std::vector<TokenScore>(draws));
    Execute(p);
    Ids ids;
    for (const TokenScore& score : memory().Download(p.out, draws)) ids.insert(score.token_id);
    return ids;
  }

  Lane LaneAfter() { return memory().Download(lanes_.lane + 1, 1)[0]; }

  template <typename T>
  void Put(T* to, const T* from, size_t count) {
    ASSERT_TRUE(device().CopyToDevice(to, from, count * sizeof(T)).ok());
  }

  int32_t size_ = 0;
  std::vector<int32_t> history_;
  Lane lane_;
  Floats bias_;
  std::vector<uint32_t> counts_;
  std::vector<uint8_t> flags_;
  Lanes lanes_ = {};
};

TEST_P(SampleTest, GreedyTakesTheHighestTheLowerIdFirst) {
  Vocabulary(5);
  EXPECT_EQ(Sample({1, 3, 2, 3, 0}).token_id, 1);
  EXPECT_EQ(Sample({-1, -3, -2, -3, -1}).token_id, 0);
  for (const int32_t size : {1, 16, 17, 100, 1000}) {
    Vocabulary(size);
    for (const int32_t best : {0, size / 2, size - 1}) {
      Floats logits(size, -2.0f);
      logits[best] = 0.5f;
      EXPECT_EQ(Sample(logits).token_id, best);
    }
  }
}

TEST_P(SampleTest, NothingIsReportedUnasked) {
  Vocabulary(3);
  const TokenScore score = Sample({1, 2, 3});
  EXPECT_EQ(score.logprob, 0);
  EXPECT_EQ(score.rank, 0);
  EXPECT_EQ(score.top_count, 0);
}

TEST_P(SampleTest, AdvancesTheLane) {
  Vocabulary(4, {3, 1});
  EXPECT_EQ(Sample({0, 0, 5, 0}).token_id, 2);
  EXPECT_EQ(LaneAfter().length, 3);
  EXPECT_EQ(memory().Download(lanes_.history + 40, 3), (std::vector<int32_t>{3, 1, 2}));
  EXPECT_EQ(memory().Download(lanes_.counts + 4, 4), (std::vector<uint32_t>{0, 0, 0, 0}));
  lane_.flags = kLanePenalties;
  counts_ = {0, 0, 7, 0};
  Sample({0, 0, 5, 0});
  EXPECT_EQ(memory().Download(lanes_.counts + 4, 4), (std::vector<uint32_t>{0, 0, 8, 0}));
}

TEST_P(SampleTest, AFullHistoryIsLeftAsItIs) {
  Vocabulary(4, std::vector<int32_t>(40, 1));
  lane_.flags = kLanePenalties;
  EXPECT_EQ(Sample({0, 0, 5, 0}).token_id, 2);
  EXPECT_EQ(LaneAfter().length, 40);
  EXPECT_EQ(memory().Download(lanes_.history + 40, 40), std::vector<int32_t>(40, 1));
  EXPECT_EQ(memory().Download(lanes_.counts + 4, 4), (std::vector<uint32_t>{0, 0, 0, 0}));
}

TEST_P(SampleTest, BiasAddsAndBars) {
  Vocabulary(4);
  lane_.flags = kLaneBias;
  bias_ = {2.5f, 0, -kInfinity, 0};
  EXPECT_EQ(Sample({1, 3, 9, 0}).token_id, 0);
  bias_ = {-kInfinity, -kInfinity, -kInfinity, 0};
  EXPECT_EQ(Sample({1, 3, 9, -100}).token_id, 3);
  lane_.temperature = 1;
  EXPECT_EQ(Support({1, 3, 9, -100}, 20), Ids({3}));
}

TEST_P(SampleTest, BiasCountsOnlyWithItsFlag) {
  Vocabulary(2);
  bias_ = {100, 0};
  EXPECT_EQ(Sample({1, 2}).token_id, 1);
}

TEST_P(SampleTest, BiasThatLeavesNothingIsSkipped) {
  Vocabulary(3);
  lane_.flags = kLaneBias;
  bias_ = Floats(3, -kInfinity);
  EXPECT_EQ(Sample({1, 3, 2}).token_id, 1);
}

TEST_P(SampleTest, RepetitionPenaltyDividesWhatIsPositiveAndMultipliesWhatIsNot) {
  Vocabulary(4);
  lane_.flags = kLanePenalties;
  lane_.repetition_penalty = 2;
  flags_ = {kTokenInPrompt, 0, 0, 0};
  EXPECT_EQ(Sample({4, 2.1f, 0, 0}).token_id, 1);  // 2 < 2.1
  EXPECT_EQ(Sample({4, 1.9f, 0, 0}).token_id, 0);
  EXPECT_EQ(Sample({-1, -1.9f, -9, -9}).token_id, 1);  // -2 < -1.9
  counts_ = {0, 3, 0, 0};                              // sampled, so it counts as well; once only
  EXPECT_EQ(Sample({-1, -1.9f, -9, -9}).token_id, 0);
}

TEST_P(SampleTest, PresenceAndFrequencyCountTheOutputOnly) {
  Vocabulary(3);
  lane_.flags = kLanePenalties;
  lane_.presence_penalty = 1;
  flags_ = {kTokenInPrompt, 0, 0};
  EXPECT_EQ(Sample({2, 1.5f, 0}).token_id, 0);
  counts_ = {3, 0, 0};
  EXPECT_EQ(Sample({2, 1.5f, 0}).token_id, 1);
  EXPECT_EQ(Sample({2.6f, 1.5f, 0}).token_id, 0);  // once, not three times
  lane_.presence_penalty = 0;
  lane_.frequency_penalty = 0.5f;
  EXPECT_EQ(Sample({3, 1.4f, 0}).token_id, 0);  // 3 - 3 * 0.5 = 1.5
  EXPECT_EQ(Sample({3, 1.6f, 0}).token_id, 1);
}

TEST_P(SampleTest, NgramsDoNotRepeat) {
  Vocabulary(5, {1, 2, 3, 1, 2});
  lane_.flags = kLaneNgrams;
  lane_.no_repeat_ngram = 3;
  EXPECT_EQ(Sample({0, 1, 2, 9, 3}).token_id, 4);  // 1 2 3 came before
  lane_.no_repeat_ngram = 4;
  EXPECT_EQ(Sample({0, 1, 2, 9, 3}).token_id, 3);
  lane_.no_repeat_ngram = 1;  // no token twice
  EXPECT_EQ(Sample({0, 1, 2, 9, -3}).token_id, 0);
  lane_.no_repeat_ngram = 2;  // after 2 came 3
  EXPECT_EQ(Sample({0, 1, 5, 9, 3}).token_id, 2);
  lane_.no_repeat_ngram = 1000;
  EXPECT_EQ(Sample({0, 1, 2, 9, 3}).token_id, 3);
}

TEST_P(SampleTest, NgramsThatLeaveNothingAreSkipped) {
  Vocabulary(3, {0, 1, 2});
  lane_.flags = kLaneNgrams;
  lane_.no_repeat_ngram = 1;
  EXPECT_EQ(Sample({0, 1, 5}).token_id, 2);
}

TEST_P(SampleTest, BarredUntilTheMinimumLength) {
  Vocabulary(3, {0, 1});
  lane_.flags = kLaneBarred;
  flags_ = {0, kTokenBarred, 0};
  lane_.min_length = 3;
  EXPECT_EQ(Sample({0, 9, 5}).token_id, 2);
  lane_.min_length = 2;
  EXPECT_EQ(Sample({0, 9, 5}).token_id, 1);
  lane_.min_length = 3;
  lane_.flags = 0;
  EXPECT_EQ(Sample({0, 9, 5}).token_id, 1);
}

TEST_P(SampleTest, TheBarThatWouldLeaveNothingIsSkippedAndTheRestIsNot) {
  Vocabulary(3);
  lane_.flags = kLaneBias | kLaneBarred;
  bias_ = {-kInfinity, -kInfinity, 0};
  flags_ = {0, 0, kTokenBarred};
  lane_.min_length = 10;
  EXPECT_EQ(Sample({9, 8, 5}).token_id, 2);
}

TEST_P(SampleTest, TemperatureFlattensAndSharpens) {
  Vocabulary(3);
  lane_.temperature = 1e-30f;
  EXPECT_EQ(Support({5, 7, 6}, 50), Ids({1}));
  lane_.temperature = 1e30f;
  EXPECT_EQ(Support({5, 7, 6}, 200), Ids({0, 1, 2}));
}

TEST_P(SampleTest, TopK) {
  Vocabulary(6);
  lane_.temperature = 100;
  lane_.top_k = 3;
  EXPECT_EQ(Support({1, 5, 2, 5, 2, 2}), Ids({1, 2, 3}));  // of equal 2s the lowest id
  lane_.top_k = 1;
  EXPECT_EQ(Support({1, 5, 2, 5, 2, 2}, 30), Ids({1}));
  lane_.top_k = 6;
  EXPECT_EQ(Support({1, 5, 2, 5, 2, 2}).size(), 6u);
  lane_.top_k = 1000;
  EXPECT_EQ(Support({1, 5, 2, 5, 2, 2}).size(), 6u);
}

TEST_P(SampleTest, TopKOfManyIsExact) {
  Vocabulary(3000);
  lane_.temperature = 1000;  // about uniform over what is left
  lane_.top_k = 40;
  const Floats logits = Values(5).Floats(3000);
  std::vector<int32_t> order = Values(6).Permutation(3000);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  EXPECT_EQ(Support(logits, 600), Ids(order.begin(), order.begin() + 40));
}

// Probabilities 0.4, 0.3, 0.2, 0.1.
const Floats kFour = {std::log(0.2f), std::log(0.4f), std::log(0.1f), std::log(0.3f)};

TEST_P(SampleTest, TopPKeepsTheFewestThatReachIt) {
  Vocabulary(4);
  lane_.temperature = 1;
  lane_.top_p = 0.65f;
  EXPECT_EQ(Support(kFour), Ids({1, 3}));
  lane_.top_p = 0.75f;
  EXPECT_EQ(Support(kFour), Ids({1, 3, 0}));
  lane_.top_p = 0.39f;
  EXPECT_EQ(Support(kFour, 50), Ids({1}));
  lane_.top_p = 0;  // the highest always stays
  EXPECT_EQ(Support(kFour, 50), Ids({1}));
}

TEST_P(SampleTest, TopPWorksOnWhatTopKLeft) {
  Vocabulary(4);
  lane_.temperature = 1;
  lane_.top_k = 2;  // 4/7 and 3/7 then
  lane_.top_p = 0.55f;
  EXPECT_EQ(Support(kFour, 100), Ids({1}));
  lane_.top_p = 0.6f;
  EXPECT_EQ(Support(kFour), Ids({1, 3}));
}

TEST_P(SampleTest, TopPOfManyEqualsKeepsTheLowerIds) {
  Vocabulary(1000);
  lane_.temperature = 1;
  lane_.top_p = 0.0305f;  // 31 of 1000
  Ids want;
  for (int32_t i = 0; i < 31; ++i) want.insert(i);
  EXPECT_EQ(Support(Floats(1000, 0.25f), 600), want);
}

TEST_P(SampleTest, MinPIsRelativeToTheHighest) {
  Vocabulary(4);
  lane_.temperature = 1;
  lane_.min_p = 0.6f;  // 0.24
  EXPECT_EQ(Support(kFour), Ids({1, 3}));
  lane_.min_p = 0.45f;  // 0.18
  EXPECT_EQ(Support(kFour), Ids({1, 3, 0}));
  lane_.top_k = 2;
  EXPECT_EQ(Support(kFour), Ids({1, 3}));
  lane_.min_p = 1;
  EXPECT_EQ(Support(kFour, 50), Ids({1}));
}

TEST_P(SampleTest, DrawsDependOnSeedIndexAndPositionAlone) {
  Vocabulary(1000);
  const Floats logits = Values(8).Floats(1000);
  lane_.temperature = 1;
  lane_.seed = (uint64_t{7} << 32) | 5;
  const int32_t first = Sample(logits).token_id;
  EXPECT_EQ(Sample(logits).token_id, first);
  const auto differs = [&](Lane changed) {
    const Lane kept = std::exchange(lane_, changed);
    const int32_t id = Sample(logits).token_id;
    lane_ = kept;
    return id != first;
  };
  Lane changed = lane_;
  changed.seed = 5;  // its upper half counts too
  EXPECT_TRUE(differs(changed));
  changed = lane_;
  changed.index = 1;
  EXPECT_TRUE(differs(changed));
  changed = lane_;
  changed.length = 2;
  EXPECT_TRUE(differs(changed));
}

// A filter removes ids; it does not redraw for those that stay.
TEST_P(SampleTest, FiltersThatKeepTheDrawnIdDoNotChangeIt) {
  Vocabulary(200);
  const Floats logits = Values(9).Floats(200, 3);
  lane_.temperature = 1;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    lane_.seed = seed;
    lane_.top_k = 0;
    lane_.top_p = 1;
    const int32_t free = Sample(logits).token_id;
    lane_.top_k = 199;
    lane_.top_p = 0.999999f;
    EXPECT_EQ(Sample(logits).token_id, free);
  }
}

TEST_P(SampleTest, LogprobsAreOfTheRawLogits) {
  Vocabulary(5);
  lane_.flags = kLaneLogprobs | kLaneBias;
  lane_.top_logprobs = 3;
  bias_ = {0, 0, 0, 100, 0};  // takes the least probable
  const TokenScore score = Sample({1, 2, 3, -1, 3});
  const double total = std::log(std::exp(1.0) + std::exp(2.0) + 2 * std::exp(3.0) + std::exp(-1.0));
  EXPECT_EQ(score.token_id, 3);
  EXPECT_NEAR(score.logprob, -1 - total, 1e-6);
  EXPECT_EQ(score.rank, 5);
  ASSERT_EQ(score.top_count, 3);
  EXPECT_EQ(std::vector<int32_t>(score.top_ids, score.top_ids + 3),
            (std::vector<int32_t>{2, 4, 1}));
  EXPECT_NEAR(score.top_logprobs[0], 3 - total, 1e-6);
  EXPECT_NEAR(score.top_logprobs[2], 2 - total, 1e-6);
}

TEST_P(SampleTest, RankOfEqualLogitsCountsLowerIds) {
  Vocabulary(3);
  lane_.flags = kLaneLogprobs | kLaneBias;
  bias_ = {0, 0, 1};
  EXPECT_EQ(Sample({2, 2, 2}).rank, 3);
}

TEST_P(SampleTest, MoreAlternativesThanIds) {
  Vocabulary(2);
  lane_.flags = kLaneLogprobs;
  lane_.top_logprobs = kMaxTopLogprobs;
  EXPECT_EQ(Sample({2, 1}).top_count, 2);
}

TEST_P(SampleTest, BrokenLogitsChooseAnAllowedId) {
  const float nan = std::nanf("");
  Vocabulary(4);
  EXPECT_EQ(Sample({nan, 1, nan, 0}).token_id, 1);
  EXPECT_EQ(Sample({nan, nan, nan, nan}).token_id, 0);
  EXPECT_EQ(Sample({0, 1, kInfinity, -kInfinity}).token_id, 2);
  EXPECT_EQ(Sample(Floats(4, -kInfinity)).token_id, 0);
  lane_.flags = kLaneBias | kLanePenalties | kLaneLogprobs;
  lane_.repetition_penalty = 1.5f;
  lane_.temperature = 0.7f;
  lane_.top_logprobs = 4;
  bias_ = {-kInfinity, 0, 0, -kInfinity};
  for (const auto& [top_k, top_p, min_p] : {std::tuple(0, 1.0f, 0.0f), std::tuple(2, 1.0f, 0.0f),
                                            std::tuple(0, 0.5f, 0.0f), std::tuple(3, 0.9f, 0.1f)}) {
    lane_.top_k = top_k;
    lane_.top_p = top_p;
    lane_.min_p = min_p;
    for (const Floats& logits :
         {Floats{nan, nan, nan, nan}, Floats{kInfinity, kInfinity, kInfinity, kInfinity},
          Floats{0, -kInfinity, nan, kInfinity}, Floats{3e38f, -3e38f, 3e38f, -3e38f}}) {
      const TokenScore score = Sample(logits);
      EXPECT_TRUE(score.token_id == 1 || score.token_id == 2) << score.token_id;
      EXPECT_TRUE(std::isfinite(score.logprob));
    }
  }
}

// ---- Beams ---------------------------------------------------------------------------------

TEST_P(SampleTest, ABeamsOptionsActOnLogprobs) {
  const Floats logits = {1, 3, 2, -1, 0};
  Floats logprobs = logits;
  double mass = 0;
  for (const float logit : logits) mass += std::exp(logit);
  for (float& logprob : logprobs) logprob -= static_cast<float>(std::log(mass));
  // Penalised: 1 (in the prompt) and 2 (sampled twice); their logprobs are negative.
  Vocabulary(5, {1, 2, 2});
  lane_.flags = kLaneBeam | kLanePenalties | kLaneBias;
  lane_.repetition_penalty = 2;
  lane_.presence_penalty = 0.25f;
  lane_.top_logprobs = 3;
  flags_[1] = kTokenInPrompt;
  counts_[2] = 2;
  bias_[0] = 0.5f;
  bias_[4] = -kInfinity;
  const TokenScore score = Sample(logits);
  const Floats left = {logprobs[0] + 0.5f, logprobs[1] * 2, logprobs[2] * 2 - 0.25f, logprobs[3]};
  EXPECT_EQ(score.token_id, 1);
  ASSERT_EQ(score.top_count, 3);
  EXPECT_EQ(score.top_ids[0], 1);
  EXPECT_NEAR(score.top_logprobs[0], left[1], 1e-5);
  EXPECT_EQ(score.top_ids[1], 0);
  EXPECT_NEAR(score.top_logprobs[1], left[0], 1e-5);
  EXPECT_EQ(score.top_ids[2], 2);
  EXPECT_NEAR(score.top_logprobs[2], left[2], 1e-5);
  EXPECT_EQ(score.top_ids[3], 0);
  // The lane goes on; who chooses the token counts it.
  EXPECT_EQ(LaneAfter().length, 4);
  EXPECT_EQ(memory().Download(lanes_.counts + size_, 5), (std::vector<uint32_t>{0, 0, 2, 0, 0}));
}

TEST_P(SampleTest, ABeamsExcludedIdsAreNotReported) {
  Vocabulary(6, {4, 3, 4});
  lane_.flags = kLaneBeam | kLaneBias | kLaneNgrams;
  lane_.no_repeat_ngram = 2;
  lane_.top_logprobs = kMaxTopLogprobs;
  for (const int32_t id : {0, 1}) bias_[id] = -kInfinity;
  const TokenScore score = Sample({9, 9, 1, 5, 2, 2});  // 3 would be the second "4 3"
  EXPECT_EQ(score.token_id, 4);
  ASSERT_EQ(score.top_count, 3);
  EXPECT_EQ(score.top_ids[0], 4);
  EXPECT_EQ(score.top_ids[1], 5);
  EXPECT_EQ(score.top_ids[2], 2);
  EXPECT_EQ(score.top_logprobs[0], score.top_logprobs[1]);
}

TEST_P(SampleTest, RowsAreSampledForTheirLanes) {
  Vocabulary(3);
  Upload();
  SampleParams p;
  p.rows = 2;
  p.row_lane = memory().Upload(std::vector<int32_t>{1, 0});
  p.lanes = lanes_;
  p.logits = memory().Activations({0, 0, 1, 1, 0, 0}, DType::kFloat32, 3);
  p.out = memory().Upload(std::vector<TokenScore>(2));
  const Lane zero = memory().Download(lanes_.lane, 1)[0];
  Execute(p);
  const auto out = memory().Download(p.out, 2);
  EXPECT_EQ(out[0].token_id, 2);
  EXPECT_EQ(out[1].token_id, 0);
  EXPECT_EQ(LaneAfter().length, 2);
  EXPECT_EQ(memory().Download(lanes_.lane, 1)[0].length, std::min(zero.length + 1, 40));
}

TEST_P(SampleTest, ScoreTokens) {
  World world(memory(), {.lanes = 2, .max_length = 40, .vocab_size = 6}, 3);
  const Floats logits = Values(10).Floats(2 * 6, 4);
  ScoreTokensParams p;
  p.rows = 2;
  p.map = world.Map({1, 0}, {7, 38});
  p.lanes = world.lanes();
  p.top = 2;
  p.logits = memory().Activations(logits, DType::kFloat32, 6);
  p.out = memory().Upload(std::vector<TokenScore>(2));
  Execute(p);
  const auto out = memory().Download(p.out, 2);
  for (int32_t r = 0; r < 2; ++r) {
    const float* row = &logits[r * 6];
    const int32_t id = r == 0 ? world.HistoryAt(1, 8) : world.HistoryAt(0, 39);
    double total = 0;
    int32_t rank = 1;
    for (int32_t i = 0; i < 6; ++i) {
      total += std::exp(static_cast<double>(row[i]));
      rank += row[i] > row[id] ? 1 : 0;
    }
    EXPECT_EQ(out[r].token_id, id);
    EXPECT_NEAR(out[r].logprob, row[id] - std::log(total), 1e-5);
    EXPECT_EQ(out[r].rank, rank);
    ASSERT_EQ(out[r].top_count, 2);
    EXPECT_EQ(out[r].top_ids[0], std::max_element(row, row + 6) - row);
  }
}

SIROCCO_ON_ALL_DEVICES(SampleTest);

}  // namespace
}  // namespace sirocco
