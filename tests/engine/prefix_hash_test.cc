#include "engine/prefix_hash.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace sirocco {
namespace {

std::vector<BlockHash> NamesOf(const PrefixHasher& hasher, const std::vector<int32_t>& tokens,
                               std::string_view salt = "") {
  std::vector<BlockHash> names;
  hasher.Append(tokens, salt, &names);
  return names;
}

std::vector<int32_t> Counting(int32_t count) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

TEST(PrefixHasher, NamesFullBlocksWhicheverWayTheyCome) {
  const PrefixHasher hasher(4);
  EXPECT_TRUE(NamesOf(hasher, Counting(3)).empty());
  const std::vector<int32_t> tokens = Counting(15);
  const std::vector<BlockHash> names = NamesOf(hasher, tokens);
  ASSERT_EQ(names.size(), 3u);
  std::vector<BlockHash> grown;
  for (size_t count = 1; count <= tokens.size(); ++count) {
    hasher.Append(std::span(tokens).first(count), "", &grown);
    EXPECT_EQ(grown.size(), count / 4);
  }
  EXPECT_EQ(grown, names);
  EXPECT_EQ(NamesOf(hasher, Counting(8)), std::vector(names.begin(), names.begin() + 2));
}

TEST(PrefixHasher, ANameDependsOnEveryTokenBeforeAndOnTheSalt) {
  const PrefixHasher hasher(4);
  const std::vector<int32_t> tokens = Counting(8);
  const BlockHash name = NamesOf(hasher, tokens)[1];
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::vector<int32_t> other = tokens;
    other[i] ^= 1 << 20;
    EXPECT_FALSE(NamesOf(hasher, other)[1] == name) << i;
  }
  std::vector<int32_t> swapped = tokens;
  std::swap(swapped[1], swapped[6]);
  EXPECT_FALSE(NamesOf(hasher, swapped)[1] == name);
  // The same tokens at another place.
  EXPECT_FALSE(NamesOf(hasher, {0, 1, 2, 3, 0, 1, 2, 3})[1] == NamesOf(hasher, Counting(4))[0]);
  std::set<std::pair<uint64_t, uint64_t>> salted;
  for (const std::string& salt :
       {std::string(), std::string("a"), std::string("b"), std::string("a\0", 2),
        std::string("12345678"), std::string("12345678\0", 9), std::string("123456789")}) {
    const BlockHash own = NamesOf(hasher, tokens, salt)[1];
    salted.emplace(own.low, own.high);
  }
  EXPECT_EQ(salted.size(), 7u);
}

TEST(PrefixHasher, EveryEngineHasAKeyOfItsOwn) {
  EXPECT_NE(NamesOf(PrefixHasher(4), Counting(4)), NamesOf(PrefixHasher(4), Counting(4)));
}

// The bits are spread: of 64 bits each is set about as often as not.
TEST(PrefixHasher, EveryBitOfANameVaries) {
  const PrefixHasher hasher(1);
  const std::vector<BlockHash> names = NamesOf(hasher, Counting(4096));
  for (int bit = 0; bit < 64; ++bit) {
    int low = 0, high = 0;
    for (const BlockHash& name : names) {
      low += name.low >> bit & 1;
      high += name.high >> bit & 1;
    }
    // Six deviations of 4,096 tosses, 32 each.
    EXPECT_NEAR(low, 2048, 192) << bit;
    EXPECT_NEAR(high, 2048, 192) << bit;
  }
}

}  // namespace
}  // namespace sirocco
