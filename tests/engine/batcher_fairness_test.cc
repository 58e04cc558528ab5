// The batcher between clients: shares, floods, who waits for whose prompts.
#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/batcher_fixture.h"

namespace sirocco {
namespace {

TEST_F(BatcherTest, ClientsAreServedInTurnByTokens) {
  Make(1, 30);
  const auto request = [](const char* client, int32_t prompt) {
    Request made;
    made.prompt.assign(prompt, 5);
    made.max_new_tokens = 1;
    made.client = client;
    return made;
  };
  for (int i = 0; i < 4; ++i) Enqueue(request("flood", 8));  // 1 to 4
  Step();
  for (int i = 0; i < 4; ++i) Enqueue(request("other", 4));  // 5 to 8
  Ids order = admitted_;
  while (!batcher_->empty()) {
    Step();
    order.insert(order.end(), admitted_.begin(), admitted_.end());
  }
  // The flood has had 8. The other begins a step's tokens, 8, before that: at 0; 4; 8, and then,
  // the one that came first, the flood to 16; the other to 12 and 16.
  EXPECT_EQ(order, (Ids{{1, 0}, {5, 0}, {6, 0}, {2, 0}, {7, 0}, {8, 0}, {3, 0}, {4, 0}}));
  ExpectEmpty();
}

// The prompt of a client that has nothing running gets whole steps, though the other's prompts were
// there before, and of twice the least: one more, where it began in what a round had left.
TEST_F(BatcherTest, APromptBesideAnothersFloodTakesNoMoreStepsThanItsOwn) {
  seconds_a_prompt_token_ = 0.01;  // so that a step has little more than the least
  seconds_a_decode_ = 0.01;
  for (const int32_t prompt : {5, 16, 40, 64}) {
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = 4, .prefill_chunk_size = 64, .block_size = 4, .kv_blocks = {400}});
    const auto request = [](const char* client, int32_t length, int32_t max_new_tokens) {
      Request made;
      made.prompt.assign(length, 5);
      made.max_new_tokens = max_new_tokens;
      made.client = client;
      return made;
    };
    for (int i = 0; i < 64; ++i) Enqueue(request("flood", 60, 30));
    for (int i = 0; i < 26; ++i) Step();
    for (int round = 0; round < 5; ++round) {
      const uint64_t number = Enqueue(request("quiet", prompt, 2))->number;
      int steps = 0;  // with prompts
      do {
        const int32_t tokens = Step().first;
        EXPECT_LE(tokens, 2 * (StepCost::kLeast + 1));
        steps += tokens > 0 ? 1 : 0;
      } while (Tokens().count({number, 0}) == 0 && steps < 100);
      EXPECT_LE(steps, 1 + prompt / (2 * StepCost::kLeast)) << prompt;
      for (int i = 0; i < 40; ++i) Step();
    }
  }
}

// A client's prompt beside another's flood: rounds, from one step of the batch to the next, that it
// makes longer are few, none more than kBurst allowances and a step of the batch, and the flood's
// prompts wait until their mean is what itl_factor says.
TEST_F(BatcherTest, WhatAPromptBorrowsOfTheBatchOthersPromptsPay) {
  seconds_a_prefill_ = 0.002;
  seconds_a_prompt_token_ = 0.001;
  seconds_a_decode_ = 0.02;
  batcher_ = std::make_unique<Batcher>(BatcherOptions{
      .max_batch_size = 4, .prefill_chunk_size = 512, .block_size = 16, .kv_blocks = {400}});
  const auto enqueue = [&](const char* client, int32_t prompt, int32_t max_new_tokens) {
    Request made;
    made.prompt.assign(prompt, 5);
    made.max_new_tokens = max_new_tokens;
    made.client = client;
    return Enqueue(std::move(made))->number;
  };
  // Seconds of a round, and of how many steps of prompts.
  const auto round = [&](uint64_t wanted = 0) {
    std::pair<double, int> round;
    for (bool ends = false; !ends;) {
      while (batcher_->gauges().requests_waiting < 8) enqueue("flood", 100, 30);
      ends = Step().second > 0;
      came_ |= Tokens().count({wanted, 0}) > 0;
      round.first += took_;
      round.second += ends ? 0 : 1;
    }
    return round;
  };
  for (int i = 0; i < 200; ++i) {
    const double seconds = round().first;
    // At first all end at once, and nobody's time counts.
    if (i >= 60) {
      EXPECT_LE(seconds, 3.1 * seconds_a_decode_);
    }
  }
  const uint64_t number = enqueue("quiet", 300, 2);
  double sum = 0;
  int rounds = 0, longer = 0;
  for (came_ = false; !came_; ++rounds) {
    const double seconds = round(number).first;
    EXPECT_LE(seconds, (1 + 2 * PromptTurns::kBurst) * 1.05 * seconds_a_decode_);
    longer += seconds > 3.5 * seconds_a_decode_ ? 1 : 0;
    sum += seconds;
  }
  EXPECT_LE(rounds, 6);  // of about 38 tokens it would be 8
  EXPECT_GE(longer, 3);
  for (auto next = round(); next.second == 0; next = round(), ++rounds) sum += next.first;
  EXPECT_NEAR(sum / rounds, 3 * seconds_a_decode_, 0.4 * seconds_a_decode_);
  EXPECT_LE(rounds, 12);
}

// Nobody borrows from its own streams, nor from one whose client was given as little.
TEST_F(BatcherTest, APromptBorrowsOfThoseAloneThatWereGivenMore) {
  seconds_a_prefill_ = 0.002;
  seconds_a_prompt_token_ = 0.001;
  seconds_a_decode_ = 0.02;
  const auto most = [&](const char* client, int32_t priority) {
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = 8, .prefill_chunk_size = 512, .block_size = 16, .kv_blocks = {400}});
    const auto enqueue = [&](const char* name, int32_t prompt, int32_t max_new_tokens) {
      Request made;
      made.prompt.assign(prompt, 5);
      made.max_new_tokens = max_new_tokens;
      made.client = name;
      if (name == std::string("quiet")) made.priority = priority;
      return Enqueue(std::move(made))->number;
    };
    for (int i = 0; i < 20; ++i) {
      enqueue("flood", 200, 20);
      for (int k = 0; k < 30; ++k) Step();
    }
    enqueue("flood", 20, 1000);
    enqueue(client, 20, 1000);
    for (int k = 0; k < 10; ++k) Step();
    const uint64_t number = enqueue("quiet", 300, 2);
    int32_t tokens = 0;
    do tokens = std::max(tokens, Step().first);
    while (Tokens().count({number, 0}) == 0);
    return tokens;
  };
  EXPECT_GE(most("flood", 0), 60);
  EXPECT_GE(most("flood", 1), 60);
  EXPECT_LE(most("flood", -1), 40);
  EXPECT_LE(most("quiet", 0), 40);
  EXPECT_LE(most("third", 0), 40);
}

// What is left of such a prompt is read with the part before it, where it is less than a step's
// start; else in parts of one size.
TEST_F(BatcherTest, ARestThatIsLessThanAStartIsNoPartOfItsOwn) {
  seconds_a_prefill_ = 0.002;
  seconds_a_prompt_token_ = 0.00001;
  seconds_a_decode_ = 0.002;
  const auto most = [&](int32_t prompt) {
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = 8, .prefill_chunk_size = 1024, .block_size = 16, .kv_blocks = {1000}});
    const auto enqueue = [&](const char* name, int32_t length, int32_t max_new_tokens) {
      Request made;
      made.prompt.assign(length, 5);
      made.max_new_tokens = max_new_tokens;
      made.client = name;
      return Enqueue(std::move(made))->number;
    };
    for (int i = 0; i < 20; ++i) {
      enqueue("flood", 500, 20);
      for (int k = 0; k < 30; ++k) Step();
    }
    enqueue("flood", 20, 1000);
    for (int k = 0; k < 10; ++k) Step();
    const uint64_t number = enqueue("quiet", prompt, 2);
    int32_t tokens = 0;
    do tokens = std::max(tokens, Step().first);
    while (Tokens().count({number, 0}) == 0);
    return tokens;
  };
  // A step may have the start and 600 tokens: twice 4 ms.
  EXPECT_EQ(most(590), 590);
  EXPECT_EQ(most(780), 780);
  EXPECT_EQ(most(820), 410);
}

TEST_F(BatcherTest, ALaneThatIsOnItsWayToAnotherClientIsWaitedFor) {
  batcher_ = std::make_unique<Batcher>(BatcherOptions{.max_batch_size = 2,
                                                      .prefill_chunk_size = 64,
                                                      .block_size = 4,
                                                      .kv_blocks = {100},
                                                      .run_ahead = 1});
  const auto enqueue = [&](const char* client) {
    Request made;
    made.prompt.assign(4, 5);
    made.max_new_tokens = 50;
    made.client = client;
    return Enqueue(std::move(made))->number;
  };
  enqueue("flood");
  enqueue("flood");
  batcher_->Admit();
  EXPECT_EQ(Plan(), (std::pair{8, 0}));
  EXPECT_EQ(Plan(), (std::pair{0, 2}));
  ASSERT_TRUE(Finish().ok());
  const uint64_t number = enqueue("other");
  EXPECT_TRUE(batcher_->Admit().empty());  // the lane is in the step that has not ended
  EXPECT_EQ(Plan(), (std::pair{0, 0}));
  ASSERT_TRUE(Finish().ok());
  const auto admitted = batcher_->Admit();
  ASSERT_EQ(admitted.size(), 1u);
  EXPECT_EQ(admitted[0]->context().number, number);
  EXPECT_EQ(Plan(), (std::pair{4, 0}));
  EXPECT_EQ(Plan(), (std::pair{0, 2}));
  batcher_->EndAll();
  while (batcher_->in_flight() > 0) ASSERT_TRUE(Finish().ok());
}

// Where a step of prompts is mostly its start, what comes right after one waits for company; not
// where there is much of it, nor where nobody decodes.
TEST_F(BatcherTest, FewPromptTokensWaitForCompany) {
  seconds_a_prefill_ = 0.01;
  seconds_a_prompt_token_ = 0.0001;
  seconds_a_decode_ = 0.01;
  batcher_ = std::make_unique<Batcher>(BatcherOptions{
      .max_batch_size = 100, .prefill_chunk_size = 512, .block_size = 16, .kv_blocks = {2000}});
  Enqueue(20, 500);
  for (int i = 0; i < 60; ++i) {
    if (i % 4 == 0) Enqueue(20 + i, 2);
    Step();
  }
  while (Step().first > 0 || batcher_->gauges().requests_running > 1) continue;
  Step();
  Enqueue(20, 500);
  EXPECT_EQ(Step(), (std::pair{20, 0}));
  Enqueue(20, 500);
  EXPECT_EQ(Step(), (std::pair{0, 2}));
  EXPECT_EQ(Step(), (std::pair{0, 2}));
  Enqueue(21, 500);
  EXPECT_EQ(Step(), (std::pair{41, 0}));
  EXPECT_EQ(Step(), (std::pair{0, 4}));
  for (int i = 0; i < 6; ++i) Enqueue(20, 500);
  EXPECT_EQ(Step().second, 0);
  for (uint64_t number = 1; number < next_number_; ++number) batcher_->EndSequence(number, 0);
  Enqueue(20, 1);
  EXPECT_EQ(Step(), (std::pair{20, 0}));
  Enqueue(20, 1);
  EXPECT_EQ(Step(), (std::pair{20, 0}));
  ExpectEmpty();
}

TEST_F(BatcherTest, ALaneIsTakenBackForAClientThatHasFewer) {
  Make(4, 100);
  const auto enqueue = [&](const char* client) {
    Request made;
    made.prompt.assign(2, 5);
    made.max_new_tokens = 50;
    made.client = client;
    Enqueue(std::move(made));
  };
  for (int i = 0; i < 6; ++i) enqueue("flood");
  Step();
  EXPECT_EQ(admitted_.size(), 4u);
  enqueue("other");  // 7 to 9
  Step();
  EXPECT_EQ(admitted_, (Ids{{7, 0}}));
  EXPECT_EQ(batcher_->TakePreemptions(), 1);
  EXPECT_EQ(Tokens().count({4, 0}), 0u);
  enqueue("other");
  enqueue("other");
  Step();
  EXPECT_EQ(admitted_, (Ids{{8, 0}}));  // two and two: no more
  Step();
  EXPECT_TRUE(admitted_.empty());
  batcher_->EndSequence(7, 0);
  Step();
  EXPECT_EQ(admitted_, (Ids{{9, 0}}));  // before those of the flood, which has more
  batcher_->EndSequence(1, 0);
  batcher_->EndSequence(2, 0);
  Step();
  EXPECT_EQ(admitted_, (Ids{{3, 0}, {4, 0}}));
  while (!batcher_->empty()) Step();
  ExpectEmpty();
}

// A flood of one client, and another that asks for one thing after the other: until its first token
// it takes no more than twice as long as alone. Time is what a device would take.
TEST_F(BatcherTest, AFloodLeavesAnothersTimeToFirstTokenWithinTwice) {
  seconds_a_prompt_token_ = 0.0001;
  seconds_a_decode_ = 0.01;
  const auto request = [](const char* client) {
    Request made;
    made.prompt.assign(400, 5);
    made.max_new_tokens = 100;
    made.client = client;
    return made;
  };
  const auto slowest = [&](bool flood) {
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = 8, .prefill_chunk_size = 512, .block_size = 16, .kv_blocks = {1000}});
    // Somebody generates at any time, so that steps are as long as they may be.
    for (int i = 0; i < (flood ? 200 : 1); ++i) Enqueue(request("flood"));
    for (int i = 0; i < 80; ++i) Step();
    double worst = 0;
    for (int round = 0; round < 8; ++round) {
      if (!flood) Enqueue(request("flood"));
      const uint64_t number = Enqueue(request("other"))->number;
      double seconds = 0;
      do {
        const auto [tokens, rows] = Step();
        seconds += tokens * seconds_a_prompt_token_ + (rows > 0 ? seconds_a_decode_ : 0);
      } while (Tokens().count({number, 0}) == 0);
      worst = std::max(worst, seconds);
      for (int i = 0; i < 20; ++i) Step();
      batcher_->EndSequence(number, 0);
    }
    return worst;
  };
  const double alone = slowest(false);
  EXPECT_LE(slowest(true), 2 * alone);
}

// The same as a client's clock tells it, with what a small model's steps take on two cores of two
// kinds, with prompts of two lengths, and with nobody else at all for comparison: less than twice
// as long, wherever in a step the request comes.
TEST_F(BatcherTest, AFloodLeavesWhoAsksNowAndThenTwiceItsTimeAlone) {
  const auto request = [](const char* client, int32_t prompt) {
    Request made;
    made.prompt.assign(prompt, 5);
    made.max_new_tokens = 16;
    made.client = client;
    return made;
  };
  for (const auto& made : {std::pair(100, false), {300, false}, {100, true}, {300, true}}) {
    const int32_t prompt = made.first;
    const bool fast = made.second;
    seconds_a_prefill_ = 0.003;
    seconds_a_prompt_token_ = fast ? 0.000375 : 0.00105;
    seconds_a_decode_ = fast ? 0.0025 : 0.006;
    seconds_a_row_ = fast ? 0.0006 : 0.0016;
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = 4, .prefill_chunk_size = 512, .block_size = 16, .kv_blocks = {400}});
    double now = 0;
    const auto step = [&](bool flood) {
      while (flood && batcher_->gauges().requests_waiting < 28) Enqueue(request("flood", 100));
      Step();
      now += took_;
    };
    const auto first_token = [&](bool flood, double came) {
      const uint64_t number = Enqueue(request("quiet", prompt))->number;
      do step(flood);
      while (Tokens().count({number, 0}) == 0);
      const double taken = now - came;
      for (const double until = now + 1.2; flood && now < until;) step(flood);
      while (!flood && !batcher_->empty()) step(flood);
      return taken;
    };
    const double alone = first_token(false, now);
    for (int i = 0; i < 200; ++i) step(true);
    double sum = 0, worst = 0;
    for (int round = 0; round < 20; ++round) {
      const double begin = now;
      step(true);
      const double taken = first_token(true, begin + (now - begin) * round / 20);
      sum += taken;
      worst = std::max(worst, taken);
    }
    EXPECT_LE(sum / 20, 1.6 * alone) << prompt << " " << fast;
    EXPECT_LE(worst, 1.8 * alone) << prompt << " " << fast;
    while (!batcher_->empty()) step(false);
  }
}

// The engine's loop and a device that runs a step ahead of it, with a model of a billion parameters
// on a large GPU, in played time: the host is held up as long as a prefill's launches are made. One
// client floods, and another asks now and then.
class BatcherAheadTest : public BatcherTest {
 protected:
  static constexpr int32_t kLanes = 16;
  static constexpr double kLaunchPrefill = 0.0019, kLaunchDecode = 0.00005, kTurn = 0.00005;
  static constexpr double kWire = 0.0005;  // between a client and the engine, to and fro

  BatcherAheadTest() {
    seconds_a_prefill_ = 0.0018;
    seconds_a_prompt_token_ = 0.0000015;
    seconds_a_decode_ = 0.00115;
    seconds_a_row_ = 0.0000047;
    batcher_ = std::make_unique<Batcher>(BatcherOptions{.max_batch_size = kLanes,
                                                        .prefill_chunk_size = 512,
                                                        .block_size = 16,
                                                        .kv_blocks = {400},
                                                        .run_ahead = 1});
  }

  // A request that comes so many seconds from now: how long its client waits for the first token.
  double Ask(double in, int32_t prompt) {
    ask_ = {.at = now_s_ + in, .prompt = prompt};
    while (ask_.taken == 0) Turn();
    return ask_.taken;
  }
  void PlayToTheEnd() {
    while (!batcher_->empty()) Turn();
  }
  void Play(double seconds) {
    for (const double until = now_s_ + seconds; now_s_ < until;) Turn();
  }
  // From now on another client has so many requests at any time.
  void Flood(int32_t requests) {
    for (int32_t i = 0; i < requests; ++i) floods_.insert(now_s_);
  }

 private:
  void Turn() {
    if (batcher_->empty() && batcher_->in_flight() == 0) now_s_ = std::max(now_s_, NextArrival());
    for (; !floods_.empty() && *floods_.begin() <= now_s_; floods_.erase(floods_.begin())) {
      flood_.insert(EnqueueOf("flood", 100));
    }
    if (ask_.number == 0 && ask_.at <= now_s_) ask_.number = EnqueueOf("quiet", ask_.prompt);
    batcher_->Admit();
    const std::pair planned = Plan();
    const bool empty = planned == std::pair(0, 0);
    if (!empty) Launch(planned.first, planned.second);
    if (ends_.size() > 1 || (empty && !ends_.empty())) Collect();
    now_s_ += kTurn;
  }
  void Launch(int32_t tokens, int32_t rows) {
    const bool prefill = tokens > 0;
    free_ = std::max(free_, now_s_ + kLaunchDecode) +
            (prefill ? seconds_a_prefill_ + tokens * seconds_a_prompt_token_
                     : seconds_a_decode_ + rows * seconds_a_row_);
    now_s_ += prefill ? kLaunchPrefill : kLaunchDecode;
    ends_.push_back(free_);
  }
  void Collect() {
    now_s_ = std::max(now_s_, ends_.front());
    ends_.pop_front();
    ASSERT_TRUE(Finish().ok());
    for (const auto& [which, role] : Tokens()) {
      if (which.first == ask_.number) {
        if (ask_.taken == 0) ask_.taken = now_s_ - ask_.at + kWire;
      } else if (role == TokenRole::kLast && flood_.count(which.first) > 0) {
        floods_.insert(now_s_ + kWire);
      }
    }
  }
  double NextArrival() const {
    const double ask = ask_.number == 0 ? ask_.at : 1e9;
    return floods_.empty() ? ask : std::min(ask, *floods_.begin());
  }
  uint64_t EnqueueOf(const char* client, int32_t prompt) {
    Request made;
    made.prompt.assign(prompt, 5);
    made.max_new_tokens = 16;
    made.client = client;
    return Enqueue(std::move(made))->number;
  }

  struct {
    double at = 0;
    int32_t prompt = 0;
    uint64_t number = 0;
    double taken = 0;
  } ask_;
  std::multiset<double> floods_;  // when the flood's next requests come
  std::set<uint64_t> flood_;      // requests
  std::deque<double> ends_;       // of the steps in flight
  double now_s_ = 0;              // the host's
  double free_ = 0;               // the device has nothing to do from then on
};

TEST_F(BatcherAheadTest, AFloodLeavesWhoAsksNowAndThenTwiceItsTimeAlone) {
  std::map<int32_t, double> alone;  // by the prompt's length
  for (int i = 0; i < 3; ++i) {     // at first nothing is known
    for (const int32_t prompt : {100, 300}) {
      alone[prompt] = Ask(0.1, prompt);
      PlayToTheEnd();
    }
  }
  Flood(8 * kLanes);
  Play(1);
  for (const int32_t prompt : {100, 300}) {
    double sum = 0, worst = 0;
    for (int i = 0; i < 40; ++i) {
      const double taken = Ask(0.0137 + i * 0.00031, prompt);
      sum += taken;
      worst = std::max(worst, taken);
      Play(1);
    }
    EXPECT_LE(sum / 40, 1.9 * alone[prompt]) << prompt;
    EXPECT_LE(worst, 2.5 * alone[prompt]) << prompt;
  }
}

// The end of a prompt is not held up by the much that other clients have; what takes hardly longer
// joins it, and so does its own client's.
TEST_F(BatcherTest, AnotherClientsPromptsHoldUpAFirstTokenByLittle) {
  seconds_a_prompt_token_ = 0.0001;
  const auto tokens_beside = [&](const char* client, double seconds_a_prefill) {
    seconds_a_prefill_ = seconds_a_prefill;
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = 4, .prefill_chunk_size = 512, .block_size = 16, .kv_blocks = {400}});
    next_number_ = 1;
    for (const int32_t learned : {200, 20}) {
      Enqueue(learned, 1);
      Step();
    }
    Request request;
    request.max_new_tokens = 1;
    request.prompt.assign(40, 5);
    request.client = "first";
    Enqueue(request);
    request.prompt.assign(400, 5);
    request.client = client;
    Enqueue(request);
    const int32_t tokens = Step().first;
    EXPECT_EQ(Tokens().count({3, 0}), 1u);
    while (!batcher_->empty()) Step();
    return tokens - 40;
  };
  EXPECT_EQ(tokens_beside("first", 0), 400);
  EXPECT_NEAR(tokens_beside("other", 0), 10, 1);
  EXPECT_NEAR(tokens_beside("other", 0.04), 110, 15);
}

}  // namespace
}  // namespace sirocco
