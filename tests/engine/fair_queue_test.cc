#include "engine/fair_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace sirocco {
namespace {

class FairQueueTest : public testing::Test {
 protected:
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
    asked.share->Serve(asked.tokens);
    FairQueue::Leave(asked.share);
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
  FairQueue queue_{{{"double", 2.0}}};
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

TEST_F(FairQueueTest, NamesOfThoseThatAreGoneAreForgotten) {
  ClientShare* const stays = queue_.Join("stays");
  for (int i = 0; i < 1000; ++i) {
    Add("name " + std::to_string(i));
    Next();
  }
  EXPECT_EQ(queue_.Join("stays"), stays);
  EXPECT_LE(queue_.clients(), 2u);
}

TEST_F(FairQueueTest, TokensBefore) {
  const auto before = [&](const std::string& client, int32_t tokens, int32_t priority = 0) {
    ClientShare* const share = queue_.Join(client);
    const int64_t count = queue_.TokensBefore(share, priority, tokens);
    FairQueue::Leave(share);
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

}  // namespace
}  // namespace sirocco
