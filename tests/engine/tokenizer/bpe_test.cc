#include "engine/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/byte_level.h"

namespace sirocco {
namespace {

// As the definition says it: find the best-ranked pair, the leftmost of equals, join it, again.
std::vector<int32_t> Naive(const BpeVocabulary& vocabulary, const std::string& word) {
  std::vector<std::string> symbols;
  for (char byte : word) {
    const std::string symbol = ByteLevelCharacter(static_cast<uint8_t>(byte));
    if (vocabulary.ids.Contains(symbol)) symbols.push_back(symbol);
  }
  while (true) {
    size_t best_rank = vocabulary.merges.size();
    size_t best = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (vocabulary.merges[rank] != MergeList::Merge(symbols[i], symbols[i + 1])) continue;
        best_rank = rank;
        best = i;
      }
    }
    if (best_rank == vocabulary.merges.size()) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
  std::vector<int32_t> ids;
  for (const std::string& symbol : symbols) ids.push_back(*vocabulary.ids.Find(symbol));
  return ids;
}

// Random merges over a few letters, so that words are full of them.
BpeVocabulary RandomVocabulary(std::mt19937& random, std::string_view letters, size_t merges) {
  BpeVocabulary vocabulary;
  std::vector<std::string> entries;
  std::set<std::pair<std::string, std::string>> known;
  for (char letter : letters) {
    entries.push_back(ByteLevelCharacter(static_cast<uint8_t>(letter)));
    vocabulary.ids.Add(entries.back(), static_cast<int32_t>(entries.size()));
  }
  for (size_t i = 0; i < merges; ++i) {
    const auto any = [&] { return entries[random() % entries.size()]; };
    std::pair<std::string, std::string> merge(any(), any());
    const std::string whole = merge.first + merge.second;
    if (whole.size() > 12) continue;
    if (!known.insert(merge).second) continue;
    if (vocabulary.ids.Add(whole, static_cast<int32_t>(entries.size()) + 1)) {
      entries.push_back(whole);
    }
    vocabulary.merges.Add(merge.first, merge.second);
  }
  return vocabulary;
}

TEST(BpeTest, AgreesWithTheDefinition) {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    const BpeVocabulary vocabulary = RandomVocabulary(random, "ab c", 40);
    absl::StatusOr<Bpe> bpe = Bpe::Make(vocabulary, {});
    ASSERT_TRUE(bpe.ok()) << bpe.status();
    Bpe::Scratch scratch;
    // Both ways of merging: short words and long ones. 'x' has no token.
    for (size_t length : {0, 1, 2, 7, 30, 47, 48, 49, 50, 80, 200}) {
      std::string word;
      while (word.size() < length) word.push_back("ab cx"[random() % 5]);
      std::vector<int32_t> ids;
      bpe->Encode(word, &scratch, &ids);
      ASSERT_EQ(ids, Naive(vocabulary, word)) << word;
    }
  }
}

TEST(BpeTest, OfSeveralRanksOfAPairTheLastCounts) {
  BpeVocabulary vocabulary;
  vocabulary.ids = {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}, {"bc", 4}};
  vocabulary.merges = {{"a", "b"}, {"b", "c"}, {"a", "b"}};
  absl::StatusOr<Bpe> bpe = Bpe::Make(vocabulary, {});
  ASSERT_TRUE(bpe.ok());
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  bpe->Encode("abc", &scratch, &ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 4}));
}

TEST(BpeTest, WholeWordsComeBeforeMergesButForExemptOnes) {
  BpeVocabulary vocabulary;
  vocabulary.ids = {{"a", 0}, {"b", 1}, {"ab", 2}, {"aba", 3}, {"bab", 4}};
  vocabulary.merges = {{"a", "b"}};
  vocabulary.ignore_merges = true;
  absl::StatusOr<Bpe> bpe = Bpe::Make(vocabulary, {false, false, false, false, true});
  ASSERT_TRUE(bpe.ok());
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  bpe->Encode("aba", &scratch, &ids);
  bpe->Encode("bab", &scratch, &ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{3, 1, 2}));
}

TEST(BpeTest, MergesNeedTheirEntries) {
  BpeVocabulary vocabulary;
  vocabulary.ids = {{"a", 0}, {"b", 1}};
  vocabulary.merges = {{"a", "b"}};
  const absl::Status status = Bpe::Make(vocabulary, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("merge 0 of 'a' and 'b'"), absl::string_view::npos) << status;
}

// Each token that is merged away looks at two new pairs.
TEST(BpeTest, LongWordsTakeLinearWork) {
  std::mt19937 random(2);
  const BpeVocabulary vocabulary = RandomVocabulary(random, "abcd", 300);
  absl::StatusOr<Bpe> bpe = Bpe::Make(vocabulary, {});
  ASSERT_TRUE(bpe.ok());
  std::string word;
  while (word.size() < 1 << 18) word.push_back("abcd"[random() % 4]);
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  bpe->Encode(word, &scratch, &ids);
  EXPECT_LT(ids.size(), word.size());
  EXPECT_LE(scratch.lookups, 3 * word.size());
}

TEST(ByteLevelTest, EveryByteHasItsCharacter) {
  std::string entry;
  std::string bytes;
  for (int b = 0; b < 256; ++b) {
    entry += ByteLevelCharacter(static_cast<uint8_t>(b));
    bytes.push_back(static_cast<char>(b));
  }
  EXPECT_EQ(ByteLevelDecode(entry), bytes);
  EXPECT_EQ(ByteLevelCharacter(' '), "\u0120");
  EXPECT_EQ(ByteLevelCharacter('\n'), "\u010A");
  EXPECT_EQ(ByteLevelDecode("a b"), std::nullopt);
  EXPECT_EQ(ByteLevelDecode("\u65e5"), std::nullopt);
  EXPECT_EQ(ByteLevelDecode("\xff"), std::nullopt);
}

}  // namespace
}  // namespace sirocco
