// A tokenizer's entries and merges as its file spells them. Compact: a file of many short ones
// takes little more memory than itself, and entries that were made to collide take no longer than
// others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sirocco {

// More entries than any model has; ids beyond are refused.
inline constexpr int32_t kMaxVocabularySize = 1 << 20;
// As many as Bpe's table takes in 2^20 places; models have up to 600,000.
inline constexpr size_t kMaxMerges = 7 << 17;

// Ids by text. Up to kMaxVocabularySize entries, of less than 4 GiB together.
class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(std::initializer_list<std::pair<std::string_view, int32_t>> entries);

  // Address space for the texts, of which only what is used takes memory.
  void Reserve(size_t bytes) { bytes_.reserve(bytes); }
  // False: the text is there already, or there is no more room.
  bool Add(std::string_view text, int32_t id);

  std::optional<int32_t> Find(std::string_view text) const;
  bool Contains(std::string_view text) const { return Find(text).has_value(); }

  // The entries, in the order that they came in.
  size_t size() const { return entries_.size(); }
  bool full() const { return entries_.size() >= kMaxVocabularySize; }
  std::string_view text(size_t i) const {
    const size_t begin = i == 0 ? 0 : entries_[i - 1].end;
    return std::string_view(bytes_).substr(begin, entries_[i].end - begin);
  }
  int32_t id(size_t i) const { return entries_[i].id; }

 private:
  struct Entry {
    uint32_t end;  // of its text in bytes_
    int32_t id;
  };
  // The slot of this text, or the empty one where it would be.
  size_t SlotOf(std::string_view text) const;
  void Grow();

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> slots_;  // an entry's number plus 1; 0: empty. At least half are.
};

// Pairs of texts, by rank, best first.
class MergeList {
 public:
  using Merge = std::pair<std::string_view, std::string_view>;

  MergeList() = default;
  MergeList(std::initializer_list<Merge> merges);

  void Reserve(size_t bytes) { bytes_.reserve(bytes); }
  // False: there are kMaxMerges already.
  bool Add(std::string_view left, std::string_view right);

  size_t size() const { return ends_.size(); }
  Merge operator[](size_t rank) const;

 private:
  struct Ends {
    uint32_t left;
    uint32_t right;
  };
  std::string bytes_;  // left and right, one pair after the other
  std::vector<Ends> ends_;
};

}  // namespace sirocco
