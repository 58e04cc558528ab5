#include "engine/beam_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

namespace sirocco {
namespace {

using Candidate = BeamSearch::Candidate;
using Row = std::vector<Candidate>;

Candidate On(int32_t token, float logprob) { return {token, logprob, /*ends=*/false}; }
Candidate End(float logprob) { return {/*token=*/0, logprob, /*ends=*/true}; }

struct Search {
  explicit Search(const BeamOptions& options, int32_t max_new_tokens = 10)
      : search(options, max_new_tokens) {}

  void Step(const std::vector<Row>& rows) { search.Advance(rows); }

  std::vector<int32_t> TokensOf(int32_t node) const {
    std::vector<int32_t> tokens;
    for (; node >= 0; node = search.nodes()[node].before) {
      tokens.insert(tokens.begin(), search.nodes()[node].token);
    }
    return tokens;
  }
  // The tokens and scores of the beams, or of the answers.
  using Scored = std::vector<std::pair<std::vector<int32_t>, double>>;
  Scored Beams() const {
    Scored beams;
    for (const BeamSearch::Beam& beam : search.beams()) {
      beams.emplace_back(TokensOf(beam.node), beam.score);
    }
    return beams;
  }
  Scored Answers() const {
    Scored answers;
    for (const BeamSearch::Answer& answer : search.answers()) {
      answers.emplace_back(TokensOf(answer.node), answer.score);
      std::vector<int32_t> tokens;
      for (const int32_t node : search.NodesOf(answer)) {
        tokens.push_back(search.nodes()[node].token);
      }
      EXPECT_EQ(tokens, answers.back().first);
    }
    return answers;
  }

  BeamSearch search;
};

using Scored = Search::Scored;

TEST(BeamSearch, TheBestContinuationsOfAllBeamsGoOn) {
  Search s({.num_beams = 2});
  s.Step({{On(5, -1), On(6, -2), On(7, -3), On(8, -4)}});
  EXPECT_EQ(s.Beams(), (Scored{{{5}, -1}, {{6}, -2}}));
  // Both of the second beam.
  s.Step({{On(1, -4), On(2, -5)}, {On(3, -0.5f), On(4, -1)}});
  EXPECT_EQ(s.Beams(), (Scored{{{6, 3}, -2.5}, {{6, 4}, -3}}));
  EXPECT_EQ(s.search.nodes()[s.search.beams()[0].node].beam, 1);
  // One of each.
  s.Step({{On(1, -1), On(2, -3)}, {On(3, -0.25f), On(4, -1)}});
  EXPECT_EQ(s.Beams(), (Scored{{{6, 4, 3}, -3.25}, {{6, 3, 1}, -3.5}}));
  EXPECT_FALSE(s.search.done());
  EXPECT_TRUE(s.Answers().empty());
}

TEST(BeamSearch, OfEqualScoresTheLowerBeamThenTheFirstCandidate) {
  Search s({.num_beams = 2});
  s.Step({{On(5, -1), On(6, -1), On(7, -1)}});
  EXPECT_EQ(s.Beams(), (Scored{{{5}, -1}, {{6}, -1}}));
  s.Step({{On(1, -1), On(2, -1)}, {On(3, -1), On(4, -1)}});
  EXPECT_EQ(s.Beams(), (Scored{{{5, 1}, -2}, {{5, 2}, -2}}));
}

TEST(BeamSearch, OnlyTheBestContinuationsFinish) {
  Search s({.num_beams = 2});
  s.Step({{On(5, -1), On(6, -2), End(-3), On(7, -4)}});
  EXPECT_TRUE(s.Answers().empty());
  s.Step({{End(-1), On(1, -3)}, {On(2, -1), End(-1.5f)}});
  // -2 and -3 are the best; the other end, -3.5, is not among them.
  EXPECT_EQ(s.Answers(), (Scored{{{5, 0}, -1}}));
  EXPECT_EQ(s.Beams(), (Scored{{{6, 2}, -3}, {{5, 1}, -4}}));
}

TEST(BeamSearch, ScoresAreDividedByAPowerOfTheLength) {
  for (const float penalty : {-1.0f, 0.0f, 0.5f, 2.0f}) {
    Search s({.num_beams = 2, .length_penalty = penalty, .early_stopping = true});
    s.Step({{End(-1), On(5, -1.125f), On(6, -2)}});
    s.Step({{End(-0.25f), On(1, -2)}, {On(2, -3), On(3, -4)}});
    const double first = -1, second = -1.375 / std::pow(2, penalty);
    Scored expected = {{{0}, first}, {{5, 0}, second}};
    if (second > first) std::swap(expected[0], expected[1]);
    EXPECT_EQ(s.Answers(), expected) << penalty;
    EXPECT_TRUE(s.search.done());
  }
}

TEST(BeamSearch, WithoutEarlyStoppingEndsWhereTheBestBeamIsNotBetter) {
  const auto two_answers = [](bool early_stopping) {
    Search s({.num_beams = 2, .length_penalty = 1, .early_stopping = early_stopping});
    s.Step({{End(-2), On(5, -2.5f), On(6, -3)}});
    // The second answer has -6.5 / 2, the best beam -4 / 2.
    s.Step({{On(1, -1.5f), On(2, -5)}, {End(-3.5f), On(3, -5)}});
    EXPECT_EQ(s.Answers(), (Scored{{{0}, -2}, {{6, 0}, -3.25}}));
    return s;
  };
  EXPECT_TRUE(two_answers(true).search.done());
  Search s = two_answers(false);
  EXPECT_FALSE(s.search.done());
  // A better answer takes the place of the worst, which is then -5 / 3; a beam with as much ends
  // it.
  s.Step({{End(-1), On(4, -1)}, {On(3, -5), On(2, -6)}});
  EXPECT_EQ(s.Answers(), (Scored{{{5, 1, 0}, -5.0 / 3}, {{0}, -2}}));
  EXPECT_FALSE(s.search.done());
  s.Step({{On(4, -3), On(5, -4)}, {On(1, -1), On(2, -2)}});
  EXPECT_TRUE(s.search.done());
  EXPECT_EQ(s.Answers().front().first, (std::vector<int32_t>{5, 1, 0}));
}

TEST(BeamSearch, AtTheLastTokenTheBestFinish) {
  Search s({.num_beams = 2, .length_penalty = 0}, /*max_new_tokens=*/2);
  s.Step({{On(5, -1), On(6, -2), On(7, -3)}});
  s.Step({{On(1, -1), End(-1.5f)}, {On(2, -0.125f), On(3, -1)}});
  EXPECT_TRUE(s.search.done());
  EXPECT_EQ(s.Answers(), (Scored{{{5, 1}, -2}, {{6, 2}, -2.125}}));
}

TEST(BeamSearch, AnswersAreNotMadeWorseByTheLast) {
  Search s({.num_beams = 2, .length_penalty = 0}, /*max_new_tokens=*/2);
  s.Step({{End(-0.5f), On(5, -1), On(6, -2)}});
  s.Step({{On(1, -1), On(2, -3)}, {On(3, -0.5f), On(4, -1)}});
  EXPECT_EQ(s.Answers(), (Scored{{{0}, -0.5}, {{5, 1}, -2}}));
}

// As where one id alone is allowed: copies of the first beam, far below it.
TEST(BeamSearch, HasAllBeamsWhereThereAreTooFewContinuations) {
  Search s({.num_beams = 3}, /*max_new_tokens=*/3);
  s.Step({{On(5, -1)}});
  ASSERT_EQ(s.Beams().size(), 3u);
  EXPECT_EQ(s.Beams()[0], (Scored::value_type{{5}, -1}));
  EXPECT_LT(s.Beams()[1].second, -1e8);
  s.Step({{On(5, -1)}, {On(5, -1)}, {On(5, -1)}});
  s.Step({{On(5, -1)}, {On(5, -1)}, {On(5, -1)}});
  EXPECT_TRUE(s.search.done());
  ASSERT_EQ(s.Answers().size(), 3u);
  EXPECT_EQ(s.Answers()[0], (Scored::value_type{{5, 5, 5}, -1}));
}

TEST(BeamSearch, GoesOnPastAnEndWhereThereIsNothingElse) {
  Search s({.num_beams = 2});
  s.Step({{On(5, -1), On(6, -2)}});
  s.Step({{End(-1)}, {On(2, -9)}});
  EXPECT_EQ(s.Beams()[0], (Scored::value_type{{6, 2}, -11}));
  EXPECT_EQ(s.Beams()[1].first, (std::vector<int32_t>{5, 0}));
  EXPECT_LT(s.Beams()[1].second, -1e8);
  EXPECT_FALSE(s.search.done());
}

}  // namespace
}  // namespace sirocco
