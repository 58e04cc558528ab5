#include "engine/tokenizer/vocabulary.h"

#include <gtest/gtest.h>

#include <string>

namespace sirocco {
namespace {

TEST(VocabularyTest, FindsWhatWasAdded) {
  Vocabulary vocabulary;
  EXPECT_EQ(vocabulary.Find("a"), std::nullopt);
  for (int32_t i = 0; i < 10'000; ++i) {
    EXPECT_TRUE(vocabulary.Add("entry " + std::to_string(i), 2 * i));
  }
  EXPECT_TRUE(vocabulary.Add("", 7));
  EXPECT_TRUE(vocabulary.Add(std::string("a\0b", 3), 9));
  EXPECT_FALSE(vocabulary.Add("entry 77", 1));
  EXPECT_EQ(vocabulary.size(), 10'002u);
  for (int32_t i = 0; i < 10'000; ++i) {
    EXPECT_EQ(vocabulary.Find("entry " + std::to_string(i)), 2 * i);
    EXPECT_EQ(vocabulary.text(i), "entry " + std::to_string(i));
    EXPECT_EQ(vocabulary.id(i), 2 * i);
  }
  EXPECT_EQ(vocabulary.Find(""), 7);
  EXPECT_EQ(vocabulary.Find(std::string("a\0b", 3)), 9);
  EXPECT_EQ(vocabulary.Find("a"), std::nullopt);
}

TEST(VocabularyTest, TakesNoMoreThanItMay) {
  Vocabulary vocabulary;
  for (int32_t i = 0; i < kMaxVocabularySize; ++i) vocabulary.Add(std::to_string(i), i);
  EXPECT_TRUE(vocabulary.full());
  EXPECT_FALSE(vocabulary.Add("one more", 5));
  EXPECT_EQ(vocabulary.Find("one more"), std::nullopt);
  EXPECT_EQ(vocabulary.Find(std::to_string(kMaxVocabularySize - 1)), kMaxVocabularySize - 1);
}

TEST(MergeListTest, KeepsTheirOrderAndParts) {
  MergeList merges = {{"a", "bc"}, {"", "x"}, {"ab", ""}};
  EXPECT_TRUE(merges.Add("left", "right"));
  ASSERT_EQ(merges.size(), 4u);
  EXPECT_EQ(merges[0], MergeList::Merge("a", "bc"));
  EXPECT_EQ(merges[1], MergeList::Merge("", "x"));
  EXPECT_EQ(merges[2], MergeList::Merge("ab", ""));
  EXPECT_EQ(merges[3], MergeList::Merge("left", "right"));
  while (merges.size() < kMaxMerges) merges.Add("a", "b");
  EXPECT_FALSE(merges.Add("a", "b"));
}

}  // namespace
}  // namespace sirocco
