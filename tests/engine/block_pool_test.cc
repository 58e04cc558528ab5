#include "engine/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <vector>

namespace sirocco {
namespace {

// Names of which many fall into one bucket.
BlockHash NameOf(uint64_t number) { return {.low = number % 3, .high = number}; }

void ExpectCounts(const BlockPool& pool, int32_t used, int32_t cached) {
  EXPECT_EQ(pool.used(), used);
  EXPECT_EQ(pool.cached(), cached);
  EXPECT_EQ(pool.available(), pool.total() - used);
}

TEST(BlockPool, ABlockWithoutANameIsFreeAgain) {
  BlockPool pool(2);
  ExpectCounts(pool, 0, 0);
  const int32_t block = pool.Take();
  ExpectCounts(pool, 1, 0);
  pool.Release(block);
  ExpectCounts(pool, 0, 0);
  EXPECT_EQ(pool.Take(), block);
}

TEST(BlockPool, ANamedBlockCanBeFoundUntilItIsTaken) {
  BlockPool pool(2);
  const int32_t block = pool.Take();
  EXPECT_EQ(pool.Find(NameOf(1)), -1);
  pool.Name(block, NameOf(1));
  EXPECT_EQ(pool.Find(NameOf(1)), block);
  EXPECT_TRUE(pool.in_use(block));
  pool.Release(block);
  ExpectCounts(pool, 0, 1);
  EXPECT_EQ(pool.Find(NameOf(1)), block);
  EXPECT_FALSE(pool.in_use(block));
  const int32_t free = pool.Take();
  EXPECT_NE(free, block);  // what holds nothing goes first
  ExpectCounts(pool, 1, 1);
  EXPECT_EQ(pool.Take(), block);
  EXPECT_EQ(pool.Find(NameOf(1)), -1);
  ExpectCounts(pool, 2, 0);
}

TEST(BlockPool, ASharedBlockIsUsedUntilTheLastHasGone) {
  BlockPool pool(1);
  const int32_t block = pool.Take();
  pool.Name(block, NameOf(1));
  pool.Share(block);
  pool.Release(block);
  ExpectCounts(pool, 1, 0);
  pool.Release(block);
  ExpectCounts(pool, 0, 1);
  pool.Share(block);
  ExpectCounts(pool, 1, 0);
  EXPECT_EQ(pool.available(), 0);
}

TEST(BlockPool, TheFirstOfTwoWithTheSameContentHasTheName) {
  BlockPool pool(2);
  const int32_t first = pool.Take(), second = pool.Take();
  pool.Name(first, NameOf(1));
  pool.Name(second, NameOf(1));
  pool.Name(first, NameOf(2));  // it holds what it holds
  EXPECT_EQ(pool.Find(NameOf(1)), first);
  EXPECT_EQ(pool.Find(NameOf(2)), -1);
  pool.Release(second);
  ExpectCounts(pool, 1, 0);
}

TEST(BlockPool, WhatNobodyHasUsedForLongestIsForgottenFirst) {
  BlockPool pool(3);
  std::vector<int32_t> blocks;
  for (int i = 0; i < 3; ++i) {
    blocks.push_back(pool.Take());
    pool.Name(blocks[i], NameOf(i));
  }
  for (const int i : {1, 0, 2}) pool.Release(blocks[i]);
  pool.Share(blocks[1]);  // used once more: now the last
  pool.Release(blocks[1]);
  EXPECT_EQ(pool.Take(), blocks[0]);
  EXPECT_EQ(pool.Take(), blocks[2]);
  EXPECT_EQ(pool.Take(), blocks[1]);
}

// Against the same rules over plain containers.
TEST(BlockPool, LongRandomUse) {
  std::mt19937 random(3);
  const auto roll = [&](size_t below) { return random() % below; };
  BlockPool pool(12);
  std::map<int32_t, int32_t> users;   // of used blocks
  std::map<uint64_t, int32_t> names;  // number -> block
  std::deque<int32_t> cached;         // in order of use
  const auto name_of = [&](int32_t block) {
    return std::find_if(names.begin(), names.end(), [&](auto& n) { return n.second == block; });
  };
  for (int step = 0; step < 20000; ++step) {
    const size_t what = roll(4);
    if (what == 0 && pool.available() > 0) {
      const bool evicts = pool.available() == pool.cached();
      const int32_t block = pool.Take();
      ASSERT_EQ(users.count(block), 0u);
      if (evicts) {
        ASSERT_EQ(block, cached.front());
        cached.pop_front();
        names.erase(name_of(block));
      }
      ASSERT_EQ(name_of(block), names.end());
      users[block] = 1;
    } else if (what == 1 && !users.empty()) {
      const auto it = std::next(users.begin(), roll(users.size()));
      const int32_t block = it->first;
      pool.Release(block);
      if (--it->second == 0) {
        users.erase(it);
        if (name_of(block) != names.end()) cached.push_back(block);
      }
    } else if (what == 2 && !users.empty()) {
      const int32_t block = std::next(users.begin(), roll(users.size()))->first;
      const uint64_t number = roll(20);
      pool.Name(block, NameOf(number));
      if (name_of(block) == names.end()) names.emplace(number, block);
    } else if (what == 3) {
      const uint64_t number = roll(20);
      const int32_t block = pool.Find(NameOf(number));
      ASSERT_EQ(block, names.count(number) > 0 ? names[number] : -1);
      if (block < 0) continue;
      pool.Share(block);
      if (users[block]++ == 0) cached.erase(std::find(cached.begin(), cached.end(), block));
    }
    ASSERT_EQ(pool.used(), static_cast<int32_t>(users.size()));
    ASSERT_EQ(pool.cached(), static_cast<int32_t>(cached.size()));
  }
}

}  // namespace
}  // namespace sirocco
