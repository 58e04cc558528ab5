#include "engine/kv_cache.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace sirocco {
namespace {

TEST(KvCache, PromisesWholeSequencesAndTakesBlocksAsTheyAreNeeded) {
  KvCache cache(/*block_size=*/4, /*blocks=*/{5});
  std::optional<BlockTable> table = cache.Reserve(9);
  ASSERT_TRUE(table);
  EXPECT_EQ(cache.used_blocks(), 0);
  // Three blocks are promised: two are left for others.
  EXPECT_FALSE(cache.Reserve(9));
  std::optional<BlockTable> other = cache.Reserve(8);
  ASSERT_TRUE(other);

  std::vector<BlockUpdate> updates;
  cache.Extend(*table, 4, /*lane=*/7, &updates);
  EXPECT_EQ(updates.size(), 1u);
  cache.Extend(*table, 4, 7, &updates);
  EXPECT_EQ(updates.size(), 1u);
  cache.Extend(*table, 5, 7, &updates);
  cache.Extend(*table, 9, 7, &updates);
  cache.Extend(*other, 8, /*lane=*/2, &updates);
  ASSERT_EQ(updates.size(), 5u);
  EXPECT_EQ(cache.used_blocks(), 5);
  std::set<int32_t> physical;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(updates[i].lane, i < 3 ? 7 : 2);
    EXPECT_EQ(updates[i].logical, i < 3 ? i : i - 3);
    physical.insert(updates[i].physical);
  }
  EXPECT_EQ(physical, (std::set<int32_t>{0, 1, 2, 3, 4}));
}

TEST(KvCache, FreeGivesBackWhatWasTakenAndWhatWasPromised) {
  KvCache cache(4, {4});
  std::vector<BlockUpdate> updates;
  for (int round = 0; round < 10; ++round) {
    std::optional<BlockTable> table = cache.Reserve(16);
    ASSERT_TRUE(table);
    cache.Extend(*table, 1 + round % 12, 0, &updates);
    EXPECT_GT(cache.used_blocks(), 0);
    cache.Free(*table);
    EXPECT_EQ(cache.used_blocks(), 0);
  }
}

TEST(KvCache, EveryLayerGroupHasItsOwnBlocks) {
  KvCache cache(4, {3, 2});
  EXPECT_EQ(cache.total_blocks(), 5);
  EXPECT_TRUE(cache.CanEverHold(8));
  EXPECT_FALSE(cache.CanEverHold(9));  // the second group is too small
  EXPECT_FALSE(cache.Reserve(9));
  std::optional<BlockTable> table = cache.Reserve(8);
  ASSERT_TRUE(table);
  std::vector<BlockUpdate> updates;
  cache.Extend(*table, 8, 0, &updates);
  ASSERT_EQ(updates.size(), 4u);
  EXPECT_EQ(updates[0].group, 0);
  EXPECT_EQ(updates[3].group, 1);
  // A refusal by one group has promised nothing in the other.
  EXPECT_FALSE(cache.Reserve(1));
  cache.Free(*table);
  EXPECT_TRUE(cache.Reserve(8));
}

}  // namespace
}  // namespace sirocco
