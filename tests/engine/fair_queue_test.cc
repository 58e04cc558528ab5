#include "engine/fair_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace sirocco {
namespace {

class FairQueueTest : public testing::Test {
 protected:
  explicit FairQueueTest(int32_t head_start = 0) : queue_({{"double", 2.0}}, head_start) {}

  void Add(const std::string& client, int32_t tokens = 10, int32_t priority = 0) {
    ClientShare* const share = queue_.Join(client);
    requests_[++last_] = {share, tokens, priority};
    queue_.Add(share, priority, last_, tokens);
  }
  // Serves the front, to its end.
  uint64_t Next() {
    const uint64_t number = queue_.front();
    const Asked& asked = requests_.at(number);
    queue_.Remove(asked.share, asked.priority, number);
    queue_.Serve(asked.share, asked.tokens);
    queue_.Leave(asked.share);
    return number;
  }
  std::vector<uint64_t> All() {
    std::vector<uint64_t> order;
    while (!queue_.empty()) order.push_back(Next());
    return order;
  }

  struct Asked {
    ClientShare* share = nullptr;
    int32_t tokens = 0;
    int32_t priority = 0;
  };
  FairQueue queue_;
  std::map<uint64_t, Asked> requests_;
  uint64_t last_ = 0;
};

TEST_F(FairQueueTest, OneClientIsServedInOrderOfPriorityAndArrival) {
  for (const int32_t priority : {0, 0, 5, -1, 5}) Add("a", 10, priority);
  EXPECT_EQ(All(), (std::vector<uint64_t>{3, 5, 1, 2, 4}));
}

TEST_F(FairQueueTest, ClientsGetTheSameTokensNotTheSameRequests) {
  for (int i = 0; i < 3; ++i) Add("a", 30);  // 1 to 3
  for (int i = 0; i < 6; ++i) Add("b", 10);  // 4 to 9
  EXPECT_EQ(All(), (std::vector<uint64_t>{1, 4, 5, 6, 2, 7, 8, 9, 3}));
}

TEST_F(FairQueueTest, AWeightOfTwoGetsTwice) {
  for (int i = 0; i < 3; ++i) Add("a");       // 1 to 3
  for (int i = 0; i < 6; ++i) Add("double");  // 4 to 9
  EXPECT_EQ(All(), (std::vector<uint64_t>{1, 4, 5, 2, 6, 7, 3, 8, 9}));
}

TEST_F(FairQueueTest, APriorityGoesBeforeAnyShare) {
  Add("a");
  Add("b", 10, 1);
  Add("b", 10, 1);
  EXPECT_EQ(All(), (std::vector<uint64_t>{2, 3, 1}));
}

TEST_F(FairQueueTest, NobodySavesUpNorPaysForATimeAlone) {
  for (int i = 0; i < 10; ++i) Add("a");
  for (int i = 0; i < 5; ++i) Next();
  Add("b");  // 11: begins where a is, not 50 tokens behind
  Add("b");
  EXPECT_EQ(Next(), 6u);
  EXPECT_EQ(Next(), 11u);
  All();
  // Both have gone. Who comes back has no debt.
  Add("c");  // 13
  Add("a");  // 14
  Add("c");
  EXPECT_EQ(All(), (std::vector<uint64_t>{13, 14, 15}));
}

// One that began when another had just gone was put behind the level, and has come up to it.
TEST_F(FairQueueTest, WhoWasAloneHasNoHeadStartLeft) {
  FairQueue queue({}, /*head_start=*/50);
  ClientShare* const gone = queue.Join("gone");
  queue.Serve(gone, 1000);
  queue.Leave(gone);
  ClientShare* const flood = queue.Join("flood");
  EXPECT_EQ(flood->served, 950);
  queue.Serve(flood, 40);
  queue.Serve(flood, 2000);
  ClientShare* const late = queue.Join("late");
  EXPECT_EQ(late->served, flood->served - 50);
}

TEST_F(FairQueueTest, WhoWasGivenMoreThanItsShareWaitsAlsoIfItLeavesInBetween) {
  for (int i = 0; i < 4; ++i) Add("a");  // 1 to 4
  Add("b", 30);                          // 5
  EXPECT_EQ(Next(), 1u);
  EXPECT_EQ(Next(), 5u);                                  // b leaves with 30 for a's 10
  Add("b");                                               // 6
  EXPECT_EQ(All(), (std::vector<uint64_t>{2, 3, 6, 4}));  // from 20; b from 30
}

// Each a client of its own, that comes and goes, while one asks all the time.
TEST_F(FairQueueTest, NewNamesDoNotStarveWhoIsThere) {
  for (int i = 0; i < 40; ++i) Add("a");  // 1 to 40
  int served = 0;
  for (int i = 0; i < 100; ++i) {
    Add("name " + std::to_string(i));
    served += Next() <= 40 ? 1 : 0;
  }
  EXPECT_GE(served, 8);  // all that wait have shares too
}

TEST_F(FairQueueTest, NamesOfThoseThatAreGoneAreForgotten) {
  ClientShare* const stays = queue_.Join("stays");
  for (int i = 0; i < 1000; ++i) {
    Add("name " + std::to_string(i));
    Next();
  }
  EXPECT_EQ(queue_.Join("stays"), stays);
  EXPECT_LE(queue_.clients(), 5u);
}

TEST_F(FairQueueTest, TokensBefore) {
  const auto before = [&](const std::string& client, int32_t tokens, int32_t priority = 0) {
    ClientShare* const share = queue_.Join(client);
    const int64_t count = queue_.TokensBefore(share, priority, tokens);
    queue_.Leave(share);
    return count;
  };
  EXPECT_EQ(before("a", 10), 0);
  for (int i = 0; i < 5; ++i) Add("a", 100);
  EXPECT_EQ(before("a", 10), 500);
  EXPECT_EQ(before("a", 10, 1), 0);
  EXPECT_EQ(before("a", 10, -1), 500);
  EXPECT_EQ(before("b", 30), 30);  // as much as it gets itself
  EXPECT_EQ(before("double", 30), 15);
  EXPECT_EQ(before("b", 9000), 500);  // no more than there is
  Add("b", 40);
  EXPECT_EQ(before("b", 30), 40 + 70);
  Add("c", 7, 2);
  EXPECT_EQ(before("b", 30), 40 + 70 + 7);
}

class HeadStartTest : public FairQueueTest {
 protected:
  HeadStartTest() : FairQueueTest(/*head_start=*/25) {}
};

TEST_F(HeadStartTest, WhoAsksNowAndThenGoesFirst) {
  for (int i = 0; i < 20; ++i) Add("a");  // 1 to 20
  for (int i = 0; i < 5; ++i) Next();
  for (int i = 0; i < 4; ++i) Add("b");  // 21 to 24: three begin within the head start
  const std::vector<uint64_t> order = {Next(), Next(), Next(), Next(), Next()};
  EXPECT_EQ(order, (std::vector<uint64_t>{21, 22, 23, 6, 24}));
}

// It is no gain for one that comes again and again: in the long run each gets half.
TEST_F(HeadStartTest, WhoComesAgainAtOnceHasNoMoreThanItsShare) {
  for (int i = 0; i < 300; ++i) Add("a");  // 1 to 300
  int a = 0, b = 0;
  uint64_t asked = 0;  // by b: one after the other
  for (int i = 0; i < 200; ++i) {
    if (asked == 0) {
      Add("b");
      asked = last_;
    }
    if (Next() == asked) {
      asked = 0;
      ++b;
    } else {
      ++a;
    }
  }
  EXPECT_NEAR(a, 100, 4);
  EXPECT_NEAR(b, 100, 4);
}

}  // namespace
}  // namespace sirocco
