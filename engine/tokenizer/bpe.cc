#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/byte_level.h"

namespace sirocco {
namespace {

constexpr uint32_t kNoMerge = std::numeric_limits<uint32_t>::max();
// Up to here looking at all pairs for each merge is faster than a heap.
constexpr size_t kShortWord = 48;

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// Entries of (rank, position), in the order of positions, by rank: two passes of ten bits each.
// `room` is of the same size.
void SortByRank(std::vector<uint64_t>* entries, std::vector<uint64_t>* room) {
  constexpr int kBits = 10;
  constexpr size_t kDigits = 1 << kBits;
  static_assert(kMaxMerges <= kDigits * kDigits);
  room->resize(entries->size());
  for (const int shift : {32, 32 + kBits}) {
    std::array<size_t, kDigits + 1> begins{};
    for (const uint64_t entry : *entries) ++begins[(entry >> shift) % kDigits + 1];
    for (size_t digit = 1; digit <= kDigits; ++digit) begins[digit] += begins[digit - 1];
    for (const uint64_t entry : *entries) (*room)[begins[(entry >> shift) % kDigits]++] = entry;
    entries->swap(*room);
  }
}

}  // namespace

absl::StatusOr<Bpe> Bpe::Make(const BpeVocabulary& vocabulary, const std::vector<bool>& exempt) {
  Bpe bpe;
  for (int b = 0; b < 256; ++b) {
    bpe.byte_ids_[b] =
        vocabulary.ids.Find(ByteLevelCharacter(static_cast<uint8_t>(b))).value_or(-1);
  }
  static_assert(kMaxMerges < kNoMerge);
  bpe.merged_.reserve(vocabulary.merges.size());
  bpe.ranks_.reserve(vocabulary.merges.size());
  std::string whole;
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const auto [left, right] = vocabulary.merges[rank];
    whole.assign(left);
    whole.append(right);
    const std::optional<int32_t> left_id = vocabulary.ids.Find(left);
    const std::optional<int32_t> right_id = vocabulary.ids.Find(right);
    const std::optional<int32_t> merged_id = vocabulary.ids.Find(whole);
    if (!left_id || !right_id || !merged_id) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge ", rank, " of ", Shown(left), " and ", Shown(right),
                       ": a part or the whole is not in the vocabulary"));
    }
    bpe.merged_.push_back(*merged_id);
    bpe.ranks_[PairKey(*left_id, *right_id)] = static_cast<uint32_t>(rank);
  }
  if (!vocabulary.ignore_merges) return bpe;
  for (size_t i = 0; i < vocabulary.ids.size(); ++i) {
    const int32_t id = vocabulary.ids.id(i);
    if (static_cast<size_t>(id) < exempt.size() && exempt[id]) continue;
    const std::optional<std::string> bytes = ByteLevelDecode(vocabulary.ids.text(i));
    if (bytes) bpe.whole_words_.Add(*bytes, id);
  }
  return bpe;
}

uint32_t Bpe::Rank(int32_t left, int32_t right, Scratch* scratch) const {
  ++scratch->lookups;
  const auto it = ranks_.find(PairKey(left, right));
  return it == ranks_.end() ? kNoMerge : it->second;
}

void Bpe::Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* out) const {
  if (const std::optional<int32_t> id = whole_words_.Find(word)) {
    out->push_back(*id);
    return;
  }
  std::vector<int32_t>& ids = scratch->ids;
  ids.clear();
  for (char byte : word) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
    if (id >= 0) ids.push_back(id);
  }
  if (ids.empty()) return;
  scratch->ranks.resize(ids.size());
  for (size_t i = 0; i + 1 < ids.size(); ++i) scratch->ranks[i] = Rank(ids[i], ids[i + 1], scratch);
  scratch->ranks.back() = kNoMerge;
  if (ids.size() <= kShortWord) {
    MergeShort(scratch, out);
  } else {
    MergeLong(scratch, out);
  }
}

// ranks[i] is of the pair that begins at i.
void Bpe::MergeShort(Scratch* scratch, std::vector<int32_t>* out) const {
  std::vector<int32_t>& ids = scratch->ids;
  std::vector<uint32_t>& ranks = scratch->ranks;
  size_t size = ids.size();
  while (size > 1) {
    const auto best = std::min_element(ranks.begin(), ranks.begin() + static_cast<ptrdiff_t>(size));
    if (*best == kNoMerge) break;
    const auto i = static_cast<size_t>(best - ranks.begin());
    ids[i] = merged_[ranks[i]];
    std::copy(ids.begin() + i + 2, ids.begin() + size, ids.begin() + i + 1);
    std::copy(ranks.begin() + i + 2, ranks.begin() + size, ranks.begin() + i + 1);
    --size;
    ranks[i] = i + 1 < size ? Rank(ids[i], ids[i + 1], scratch) : kNoMerge;
    if (i > 0) ranks[i - 1] = Rank(ids[i - 1], ids[i], scratch);
  }
  out->insert(out->end(), ids.begin(), ids.begin() + static_cast<ptrdiff_t>(size));
}

// The tokens are a linked list over the byte positions. The next merge is the least (rank,
// position) of those that were there from the beginning, sorted once, and those that merges made,
// in a heap. An entry whose pair has changed meanwhile is dropped when it comes up.
void Bpe::MergeLong(Scratch* scratch, std::vector<int32_t>* out) const {
  std::vector<int32_t>& ids = scratch->ids;
  std::vector<uint32_t>& ranks = scratch->ranks;
  std::vector<int32_t>& next = scratch->next;
  std::vector<int32_t>& previous = scratch->previous;
  std::vector<uint64_t>& sorted = scratch->sorted;
  std::vector<uint64_t>& heap = scratch->heap;
  const auto size = static_cast<int32_t>(ids.size());
  next.resize(ids.size());
  previous.resize(ids.size());
  sorted.clear();
  heap.clear();
  const auto entry = [&](int32_t at) {
    return uint64_t{ranks[at]} << 32 | static_cast<uint32_t>(at);
  };
  for (int32_t i = 0; i < size; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
    if (ranks[i] != kNoMerge) sorted.push_back(entry(i));
  }
  SortByRank(&sorted, &heap);
  heap.clear();
  size_t next_sorted = 0;
  const auto set_rank = [&](int32_t at) {
    ranks[at] = next[at] < size ? Rank(ids[at], ids[next[at]], scratch) : kNoMerge;
    if (ranks[at] == kNoMerge) return;
    heap.push_back(entry(at));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (next_sorted < sorted.size() || !heap.empty()) {
    uint64_t top;
    if (heap.empty() || (next_sorted < sorted.size() && sorted[next_sorted] < heap.front())) {
      top = sorted[next_sorted++];
    } else {
      std::pop_heap(heap.begin(), heap.end(), std::greater<>());
      top = heap.back();
      heap.pop_back();
    }
    const auto at = static_cast<int32_t>(top & 0xFFFFFFFF);
    if (ranks[at] != top >> 32) continue;
    const int32_t gone = next[at];
    ids[at] = merged_[ranks[at]];
    ranks[gone] = kNoMerge;
    next[at] = next[gone];
    if (next[at] < size) previous[next[at]] = at;
    set_rank(at);
    if (previous[at] >= 0) set_rank(previous[at]);
  }
  for (int32_t i = 0; i < size; i = next[i]) out->push_back(ids[i]);
}

}  // namespace sirocco
