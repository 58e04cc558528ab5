#include "engine/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <span>
#include <vector>

namespace sirocco {
namespace {

// Names of a prompt's blocks; those of two prompts begin alike where their letters do.
std::vector<BlockHash> Names(std::string_view letters) {
  std::vector<BlockHash> names;
  uint64_t all = 0;
  for (const char letter : letters) names.push_back({.low = all = all * 31 + letter, .high = 1});
  return names;
}

// A sequence that computes all that it cannot share, as one chunk.
class User {
 public:
  User(KvCache& cache, std::string_view letters, int32_t block_size = 4)
      : cache_(cache), names_(Names(letters)), table_(cache.MakeTable(1 << 10)) {
    cached_ = cache.Share(table_, names_);
    const auto slots = static_cast<int32_t>(names_.size()) * block_size;
    fits_ = cache.Extend(table_, cached_, slots + 1, /*lane=*/3, &updates_);
    if (fits_) cache.Name(table_, names_);
  }

  bool fits() const { return fits_; }
  int32_t cached() const { return cached_; }
  const std::vector<BlockUpdate>& updates() const { return updates_; }
  const BlockTable& table() const { return table_; }
  void Free() { cache_.Free(table_); }

 private:
  KvCache& cache_;
  std::vector<BlockHash> names_;
  BlockTable table_;
  std::vector<BlockUpdate> updates_;
  int32_t cached_ = 0;
  bool fits_ = false;
};

TEST(KvCache, AForkSharesAllAndCopiesWhatTwoWrite) {
  KvCache cache(/*block_size=*/4, /*blocks=*/{6, 6}, {{.window = 0}, {.window = 6}});
  BlockTable parent = cache.MakeTable(20), fork = cache.MakeTable(20), other = cache.MakeTable(20);
  std::vector<BlockUpdate> updates;
  std::vector<BlockCopy> copies;
  ASSERT_TRUE(cache.Extend(parent, 0, 6, /*lane=*/0, &updates, &copies));
  cache.Fork(parent, fork);
  EXPECT_EQ(cache.used_blocks(), 4);
  EXPECT_EQ(fork.blocks, parent.blocks);
  EXPECT_TRUE(cache.Shares(fork, 6));
  EXPECT_FALSE(cache.Shares(fork, 8));  // there is nothing yet
  updates.clear();

  // The first to write takes a copy, the last one writes where it was.
  ASSERT_TRUE(cache.Extend(fork, 6, 7, /*lane=*/1, &updates, &copies));
  ASSERT_EQ(updates.size(), 2u);
  ASSERT_EQ(copies.size(), 2u);
  for (int32_t group = 0; group < 2; ++group) {
    EXPECT_EQ(copies[group].group, group);
    EXPECT_EQ(copies[group].from, parent.blocks[group][1]);
    EXPECT_EQ(copies[group].to, fork.blocks[group][1]);
    EXPECT_NE(copies[group].from, copies[group].to);
    EXPECT_EQ(updates[group].lane, 1);
    EXPECT_EQ(updates[group].logical, 1);
    EXPECT_EQ(updates[group].physical, copies[group].to);
    EXPECT_EQ(fork.blocks[group][0], parent.blocks[group][0]);
  }
  EXPECT_FALSE(cache.Shares(parent, 6));
  ASSERT_TRUE(cache.Extend(parent, 6, 7, /*lane=*/0, &updates, &copies));
  EXPECT_EQ(copies.size(), 2u);
  EXPECT_EQ(updates.size(), 2u);
  EXPECT_EQ(cache.used_blocks(), 6);

  // Where no block is left nothing is taken; a fork anew gives back what it had.
  ASSERT_TRUE(cache.Extend(other, 0, 12, /*lane=*/2, &updates, &copies));
  cache.Fork(parent, fork);
  EXPECT_EQ(cache.used_blocks(), 10);
  ASSERT_TRUE(cache.Extend(other, 11, 13, /*lane=*/2, &updates, &copies));
  copies.clear();
  EXPECT_FALSE(cache.Extend(fork, 7, 8, /*lane=*/1, &updates, &copies));
  EXPECT_TRUE(copies.empty());
  EXPECT_EQ(fork.blocks, parent.blocks);
  for (BlockTable* table : {&parent, &fork, &other}) cache.Free(*table);
  EXPECT_EQ(cache.used_blocks(), 0);
}

TEST(KvCache, TakesBlocksAsTheyAreNeeded) {
  KvCache cache(/*block_size=*/4, /*blocks=*/{5});
  BlockTable table = cache.MakeTable(9), other = cache.MakeTable(12);
  EXPECT_EQ(cache.used_blocks(), 0);
  std::vector<BlockUpdate> updates;
  EXPECT_TRUE(cache.Extend(table, 0, 4, /*lane=*/7, &updates));
  EXPECT_EQ(updates.size(), 1u);
  EXPECT_TRUE(cache.Extend(table, 3, 4, 7, &updates));
  EXPECT_EQ(updates.size(), 1u);
  EXPECT_TRUE(cache.Extend(table, 4, 5, 7, &updates));
  EXPECT_TRUE(cache.Extend(table, 5, 9, 7, &updates));
  // Three are wanted and two are left: nothing is taken.
  EXPECT_FALSE(cache.Extend(other, 0, 12, /*lane=*/2, &updates));
  EXPECT_EQ(cache.used_blocks(), 3);
  EXPECT_TRUE(cache.Extend(other, 0, 8, 2, &updates));
  ASSERT_EQ(updates.size(), 5u);
  EXPECT_EQ(cache.used_blocks(), 5);
  std::set<int32_t> physical;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(updates[i].lane, i < 3 ? 7 : 2);
    EXPECT_EQ(updates[i].logical, i < 3 ? i : i - 3);
    physical.insert(updates[i].physical);
  }
  EXPECT_EQ(physical, (std::set<int32_t>{0, 1, 2, 3, 4}));
  cache.Free(table);
  EXPECT_EQ(cache.used_blocks(), 2);
  EXPECT_TRUE(cache.Extend(other, 8, 20, 2, &updates));
}

TEST(KvCache, EveryLayerGroupHasItsOwnBlocks) {
  KvCache cache(4, {3, 2});
  EXPECT_EQ(cache.total_blocks(), 5);
  EXPECT_TRUE(cache.CanEverHold(8));
  EXPECT_FALSE(cache.CanEverHold(9));  // the second group is too small
  BlockTable table = cache.MakeTable(9);
  std::vector<BlockUpdate> updates;
  EXPECT_FALSE(cache.Extend(table, 0, 9, 0, &updates));
  EXPECT_EQ(cache.used_blocks(), 0);  // nothing of the first either
  EXPECT_TRUE(cache.Extend(table, 0, 8, 0, &updates));
  ASSERT_EQ(updates.size(), 4u);
  EXPECT_EQ(updates[0].group, 0);
  EXPECT_EQ(updates[3].group, 1);
}

TEST(KvCache, RoomIsLeftForThoseThatAreToHaveMore) {
  KvCache cache(4, {6});
  BlockTable table = cache.MakeTable(16);
  std::vector<BlockUpdate> updates;
  ASSERT_TRUE(cache.Extend(table, 0, 4, 0, &updates));
  EXPECT_TRUE(cache.HasRoom({}, 20, {}));
  EXPECT_FALSE(cache.HasRoom({}, 21, {}));
  const std::vector<KvCache::Need> needs = {{&table, 16}};
  EXPECT_TRUE(cache.HasRoom({}, 8, needs));
  EXPECT_FALSE(cache.HasRoom({}, 9, needs));
}

TEST(KvCache, WhatBeginsAlikeIsShared) {
  KvCache cache(4, {8});
  User first(cache, "abc");
  EXPECT_EQ(first.cached(), 0);
  EXPECT_EQ(cache.used_blocks(), 4);  // three full ones, and the next
  User second(cache, "abd");
  EXPECT_EQ(second.cached(), 8);
  EXPECT_EQ(cache.used_blocks(), 6);
  ASSERT_EQ(second.updates().size(), 4u);  // its lane is told of the shared ones too
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(second.updates()[i].logical, i);
    EXPECT_EQ(second.updates()[i].physical, first.updates()[i].physical);
  }
  EXPECT_NE(second.updates()[2].physical, first.updates()[2].physical);
  first.Free();
  EXPECT_EQ(cache.used_blocks(), 4);
  EXPECT_EQ(cache.cached_blocks(), 1);  // c
  second.Free();
  EXPECT_EQ(cache.used_blocks(), 0);
  EXPECT_EQ(cache.cached_blocks(), 4);
  // Of no use behind another beginning.
  EXPECT_EQ(User(cache, "xbc").cached(), 0);
}

TEST(KvCache, RoomCountsWhatOthersUseButNotWhatNobodyDoes) {
  KvCache cache(4, {6});
  User first(cache, "abc");
  EXPECT_TRUE(cache.HasRoom(Names("abc"), 20, {}));  // two beside the three that are there
  EXPECT_FALSE(cache.HasRoom(Names("abd"), 20, {}));
  first.Free();
  EXPECT_TRUE(cache.HasRoom(Names("abc"), 24, {}));
  EXPECT_FALSE(cache.HasRoom(Names("abc"), 25, {}));
}

TEST(KvCache, TheEndOfWhatWasUsedLongestAgoIsForgottenFirst) {
  KvCache cache(4, {7});
  User first(cache, "abc");
  first.Free();
  User second(cache, "x");
  second.Free();
  User third(cache, "pq");  // three are free
  EXPECT_EQ(cache.used_blocks() + cache.cached_blocks(), 7);
  User fourth(cache, "y");  // takes what was c and b
  third.Free();
  fourth.Free();
  EXPECT_EQ(User(cache, "ab").cached(), 4);
}

TEST(KvCache, MoreMayBeThereLater) {
  KvCache cache(4, {12});
  std::vector<BlockHash> names = Names("abcd");
  BlockTable table = cache.MakeTable(100);
  EXPECT_EQ(cache.Share(table, names), 0);
  User first(cache, "ab");
  EXPECT_EQ(cache.Share(table, names), 8);
  User second(cache, "abc");
  EXPECT_EQ(cache.Share(table, names), 12);
  EXPECT_EQ(cache.Share(table, names), 12);
  std::vector<BlockUpdate> updates;
  EXPECT_TRUE(cache.Extend(table, 12, 13, 0, &updates));
  EXPECT_EQ(updates.size(), 4u);
  const int64_t used = cache.used_blocks();
  cache.Free(table);
  EXPECT_EQ(cache.used_blocks(), used - 1);
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

TEST(KvCache, BlocksThatAWindowHasPassedAreGivenBack) {
  // A window of 4 and chunks of 2: three blocks at once, however long the sequence.
  KvCache cache(/*block_size=*/4, /*blocks=*/{26, 3}, {{.window = 0}, {.window = 4}}, 2);
  EXPECT_TRUE(cache.CanEverHold(100));
  BlockTable table = cache.MakeTable(50);
  std::vector<BlockUpdate> updates;
  int32_t told[2] = {0, 0};
  for (int32_t first = 0; first < 50; first += 2) {
    updates.clear();
    ASSERT_TRUE(cache.Extend(table, first, first + 2, 0, &updates)) << first;
    for (const BlockUpdate& update : updates) EXPECT_EQ(update.logical, told[update.group]++);
    // Whatever rows `first` and `first` + 1 see has its block.
    for (int32_t slot = std::max(0, first - 3); slot < first + 2; ++slot) {
      EXPECT_GE(table.blocks[1][slot / 4], 0);
    }
  }
  EXPECT_EQ(told[0], 13);
  EXPECT_EQ(told[1], 13);
  EXPECT_EQ(cache.used_blocks(), 13 + 2);
  cache.Free(table);
  EXPECT_EQ(cache.used_blocks(), 0);
}

TEST(KvCache, AWindowNeedsOnlyWhatItShows) {
  // A window of 5: a row at the begin of a block sees that block's slot and the block before.
  KvCache cache(4, {20, 6}, {{.window = 0}, {.window = 5}}, 4);
  User first(cache, "abcdef");
  ASSERT_FALSE(first.fits());  // 7 blocks of the window's group at once: never in one chunk of 4
  first.Free();
  BlockTable table = cache.MakeTable(100);
  const std::vector<BlockHash> names = Names("abcdef");
  std::vector<BlockUpdate> updates;
  for (int32_t block = 0; block < 6; ++block) {
    ASSERT_TRUE(cache.Extend(table, block * 4, block * 4 + 4, 0, &updates));
    cache.Name(table, std::span(names).first(block + 1));
  }
  EXPECT_EQ(cache.used_blocks(), 6 + 2);
  EXPECT_EQ(cache.cached_blocks(), 4);  // a to d of the window's group

  // Everything is there: the whole beginning is shared, with one block of the window's group.
  User second(cache, "abcdefg");
  EXPECT_EQ(second.cached(), 24);
  EXPECT_EQ(second.table().first[1], 5);
  for (int32_t logical = 0; logical < 5; ++logical) {
    EXPECT_EQ(second.table().blocks[1][logical], -1);
  }
  // Its lane is told of all of the one group, of what is seen of the other.
  EXPECT_EQ(second.updates().size(), 8u + 3u);
  cache.Free(table);
  second.Free();
  EXPECT_EQ(cache.used_blocks(), 0);

  // After five other blocks went through the window's group, only a few of its are left, and a
  // beginning is shared as far as they allow.
  User other(cache, "vwxy");
  ASSERT_TRUE(other.fits());
  EXPECT_EQ(cache.Share(table, names), 24);  // f is there: used last
  cache.Free(table);
  other.Free();
  User another(cache, "VWXYZ");
  ASSERT_TRUE(another.fits());
  EXPECT_EQ(cache.Share(table, names), 0);
}

}  // namespace
}  // namespace sirocco
