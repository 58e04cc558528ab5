#include "engine/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
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

// Whatever a step writes and reads has blocks of its own, wherever in them it begins.
TEST(SequenceBlocks, AWindowAChunkAndARowAheadAreAllThere) {
  for (const int32_t block_size : {1, 3, 4, 16}) {
    for (const int32_t window : {1, 2, 5, 16, 17}) {
      for (const int32_t chunk : {1, 2, 7, 16}) {
        const int32_t count = SequenceBlocks({.window = window}, 1 << 20, block_size, chunk);
        int32_t needed = 0;
        for (int32_t first = 0; first < block_size; ++first) {
          needed = std::max(needed, (first + window + chunk - 1) / block_size + 1);
        }
        EXPECT_EQ(count, needed) << block_size << " " << window << " " << chunk;
      }
    }
  }
  EXPECT_EQ(SequenceBlocks({.window = 100}, 9, 4, 8), 3);  // a short sequence needs no more
  EXPECT_EQ(SequenceBlocks({.window = 0}, 1000, 4, 8), 250);
}

TEST(KvCache, BlocksThatAWindowHasPassedAreUsedAgain) {
  // A window of 4 and chunks of 2: three blocks, however long the sequence.
  KvCache cache(/*block_size=*/4, /*blocks=*/{26, 6}, {{.window = 0}, {.window = 4}}, 2);
  EXPECT_TRUE(cache.CanEverHold(100));
  std::optional<BlockTable> table = cache.Reserve(50);
  ASSERT_TRUE(table);
  std::vector<BlockUpdate> updates;
  std::vector<int32_t> full, windowed;  // by logical block
  for (int32_t slots = 1; slots <= 50; ++slots) {
    updates.clear();
    cache.Extend(*table, slots, 0, &updates);
    for (const BlockUpdate& update : updates) {
      std::vector<int32_t>& physical = update.group == 0 ? full : windowed;
      EXPECT_EQ(update.logical, static_cast<int32_t>(physical.size()));
      physical.push_back(update.physical);
    }
  }
  ASSERT_EQ(full.size(), 13u);
  ASSERT_EQ(windowed.size(), 13u);
  EXPECT_EQ(std::set<int32_t>(full.begin(), full.end()).size(), 13u);
  EXPECT_EQ(std::set<int32_t>(windowed.begin(), windowed.end()).size(), 3u);
  for (size_t i = 3; i < windowed.size(); ++i) EXPECT_EQ(windowed[i], windowed[i - 3]);
  EXPECT_EQ(cache.used_blocks(), 13 + 3);
  EXPECT_TRUE(cache.Reserve(50));  // the other three of the window's
  EXPECT_FALSE(cache.Reserve(5));
  cache.Free(*table);
  EXPECT_EQ(cache.used_blocks(), 0);
  EXPECT_TRUE(cache.Reserve(5));
}

}  // namespace
}  // namespace sirocco
