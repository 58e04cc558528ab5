#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

constexpr uint32_t kNoMerge = std::numeric_limits<uint32_t>::max();
// Up to here looking at all pairs for each merge is faster than a heap.
constexpr size_t kShortWord = 48;
// Bytes that are looked up to find the ways in which entries with scores can be made. The 256,000
// of Gemma 3 take less than a tenth of it.
constexpr size_t kMaxSplitBytes = 1 << 29;

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
  bpe.byte_level_ = vocabulary.byte_level;
  bpe.fuse_unk_ = vocabulary.fuse_unk;
  if (!vocabulary.byte_level && !vocabulary.unk_token.empty()) {
    const std::optional<int32_t> id = vocabulary.ids.Find(vocabulary.unk_token);
    if (!id) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown token ", Shown(vocabulary.unk_token), " is not in the vocabulary"));
    }
    bpe.unk_id_ = *id;
  }
  bpe.FindFirstTokens(vocabulary);
  absl::Status status =
      vocabulary.scores.empty() ? bpe.ReadMerges(vocabulary) : bpe.ReadScores(vocabulary);
  if (!status.ok()) return status;
  if (!vocabulary.ignore_merges) return bpe;
  for (size_t i = 0; i < vocabulary.ids.size(); ++i) {
    const int32_t id = vocabulary.ids.id(i);
    if (static_cast<size_t>(id) < exempt.size() && exempt[id]) continue;
    if (!vocabulary.byte_level) {
      bpe.whole_words_.Add(vocabulary.ids.text(i), id);
    } else if (const auto bytes = ByteLevelDecode(vocabulary.ids.text(i))) {
      bpe.whole_words_.Add(*bytes, id);
    }
  }
  return bpe;
}

void Bpe::FindFirstTokens(const BpeVocabulary& vocabulary) {
  byte_ids_.fill(-1);
  for (int b = 0; b < 256; ++b) {
    const auto byte = static_cast<uint8_t>(b);
    if (!byte_level_ && !vocabulary.byte_fallback) break;
    const std::string entry = byte_level_ ? ByteLevelCharacter(byte) : ByteFallbackToken(byte);
    byte_ids_[b] = vocabulary.ids.Find(entry).value_or(-1);
  }
  if (byte_level_) return;
  for (size_t i = 0; i < vocabulary.ids.size(); ++i) {
    const std::string_view text = vocabulary.ids.text(i);
    if (text.empty() || text.size() > 4 || FindInvalidUtf8(text) != text.size()) continue;
    if (!vocabulary.scores.empty() && std::isnan(vocabulary.scores[i])) continue;
    size_t pos = 0;
    const char32_t c = ReadUtf8(text, &pos);
    if (pos == text.size()) characters_[c] = vocabulary.ids.id(i);
  }
}

absl::Status Bpe::ReadMerges(const BpeVocabulary& vocabulary) {
  static_assert(kMaxMerges < kNoMerge);
  merged_.reserve(vocabulary.merges.size());
  ranks_.reserve(vocabulary.merges.size());
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
    merged_.push_back(*merged_id);
    ranks_[PairKey(*left_id, *right_id)] = static_cast<uint32_t>(rank);
  }
  return absl::OkStatus();
}

// Entries of equal scores have one rank, so that of their pairs the leftmost comes first.
absl::Status Bpe::ReadScores(const BpeVocabulary& vocabulary) {
  const std::vector<float>& scores = vocabulary.scores;
  if (scores.size() != vocabulary.ids.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(scores.size(), " scores for ", vocabulary.ids.size(), " entries"));
  }
  std::vector<uint32_t> order;
  order.reserve(scores.size());
  std::vector<bool> joins;  // by id
  size_t bytes = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i])) continue;
    order.push_back(static_cast<uint32_t>(i));
    const auto id = static_cast<size_t>(vocabulary.ids.id(i));
    if (id >= joins.size()) joins.resize(id + 1);
    joins[id] = true;
    const size_t size = vocabulary.ids.text(i).size();
    bytes += std::min(size, kMaxSplitBytes) * std::min(size, kMaxSplitBytes);
    if (bytes <= kMaxSplitBytes) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("its entries are too long to find how they are made: the squares of their "
                     "sizes add up to more than ",
                     kMaxSplitBytes));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && scores[order[end]] == scores[order[begin]]) ++end;
    const auto rank = static_cast<uint32_t>(merged_.size());
    const bool is_tied = end - begin > 1;
    merged_.push_back(is_tied ? -1 : vocabulary.ids.id(order[begin]));
    for (; begin < end; ++begin) {
      absl::Status status = AddSplits(vocabulary, joins, order[begin], rank, is_tied);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

// Every way to make an entry of two others.
absl::Status Bpe::AddSplits(const BpeVocabulary& vocabulary, const std::vector<bool>& joins,
                            size_t entry, uint32_t rank, bool is_tied) {
  const std::string_view text = vocabulary.ids.text(entry);
  const auto find = [&](std::string_view part) -> std::optional<int32_t> {
    const std::optional<int32_t> id = vocabulary.ids.Find(part);
    const bool is_part = id && static_cast<size_t>(*id) < joins.size() && joins[*id];
    return is_part ? id : std::nullopt;
  };
  for (size_t at = 1; at < text.size(); ++at) {
    if ((static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) continue;  // within a character
    const std::optional<int32_t> left = find(text.substr(0, at));
    const std::optional<int32_t> right = left ? find(text.substr(at)) : std::nullopt;
    if (!right) continue;
    if (ranks_.size() >= kMaxMerges) {
      return absl::InvalidArgumentError(
          absl::StrCat("its entries can be made in more than ", kMaxMerges, " ways"));
    }
    ranks_[PairKey(*left, *right)] = rank;
    if (is_tied) tied_[PairKey(*left, *right)] = vocabulary.ids.id(entry);
  }
  return absl::OkStatus();
}

uint32_t Bpe::Rank(int32_t left, int32_t right, Scratch* scratch) const {
  ++scratch->lookups;
  const auto it = ranks_.find(PairKey(left, right));
  return it == ranks_.end() ? kNoMerge : it->second;
}

int32_t Bpe::Merged(uint32_t rank, int32_t left, int32_t right) const {
  return merged_[rank] >= 0 ? merged_[rank] : tied_.at(PairKey(left, right));
}

bool Bpe::AppendBytes(std::string_view character, std::vector<int32_t>* ids) const {
  const auto id_of = [this](char byte) { return byte_ids_[static_cast<uint8_t>(byte)]; };
  if (std::any_of(character.begin(), character.end(), [&](char b) { return id_of(b) < 0; })) {
    return false;
  }
  for (char byte : character) ids->push_back(id_of(byte));
  return true;
}

// A run of unknown characters ends with the next one that has an entry: bytes in place of another
// one come before what stands for the run, as Hugging Face's BPE has it.
void Bpe::AppendCharacters(std::string_view word, std::vector<int32_t>* ids) const {
  bool unknown = false;  // one that is not written yet
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    const auto it = characters_.find(ReadUtf8(word, &pos));
    if (it != characters_.end()) {
      if (unknown) ids->push_back(unk_id_);
      unknown = false;
      ids->push_back(it->second);
      continue;
    }
    if (AppendBytes(word.substr(begin, pos - begin), ids) || unk_id_ < 0) continue;
    if (unknown && !fuse_unk_) ids->push_back(unk_id_);
    unknown = true;
  }
  if (unknown) ids->push_back(unk_id_);
}

void Bpe::Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* out) const {
  if (const std::optional<int32_t> id = whole_words_.Find(word)) {
    out->push_back(*id);
    return;
  }
  std::vector<int32_t>& ids = scratch->ids;
  ids.clear();
  if (byte_level_) {
    for (char byte : word) {
      const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
      if (id >= 0) ids.push_back(id);
    }
  } else {
    AppendCharacters(word, &ids);
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
    ids[i] = Merged(ranks[i], ids[i], ids[i + 1]);
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
    ids[at] = Merged(ranks[at], ids[at], ids[gone]);
    ranks[gone] = kNoMerge;
    next[at] = next[gone];
    if (next[at] < size) previous[next[at]] = at;
    set_rank(at);
    if (previous[at] >= 0) set_rank(previous[at]);
  }
  for (int32_t i = 0; i < size; i = next[i]) out->push_back(ids[i]);
}

}  // namespace sirocco
