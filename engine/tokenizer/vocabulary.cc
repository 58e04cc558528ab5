#include "engine/tokenizer/vocabulary.h"

#include <limits>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace sirocco {
namespace {

constexpr size_t kLeastSlots = 64;
constexpr size_t kMostBytes = std::numeric_limits<uint32_t>::max();

// Another one in every process.
size_t HashOf(std::string_view text) {
  return absl::Hash<absl::string_view>()(absl::string_view(text.data(), text.size()));
}

}  // namespace

Vocabulary::Vocabulary(std::initializer_list<std::pair<std::string_view, int32_t>> entries) {
  for (const auto& [text, id] : entries) Add(text, id);
}

bool Vocabulary::Add(std::string_view text, int32_t id) {
  if (full() || text.size() > kMostBytes - bytes_.size()) return false;
  if (slots_.size() < 2 * (entries_.size() + 1)) Grow();
  uint32_t& slot = slots_[SlotOf(text)];
  if (slot != 0) return false;
  bytes_.append(text);
  entries_.push_back({static_cast<uint32_t>(bytes_.size()), id});
  slot = static_cast<uint32_t>(entries_.size());
  return true;
}

std::optional<int32_t> Vocabulary::Find(std::string_view text) const {
  if (slots_.empty()) return std::nullopt;
  const uint32_t slot = slots_[SlotOf(text)];
  if (slot == 0) return std::nullopt;
  return entries_[slot - 1].id;
}

size_t Vocabulary::SlotOf(std::string_view wanted) const {
  const size_t mask = slots_.size() - 1;
  size_t at = HashOf(wanted) & mask;
  while (slots_[at] != 0 && text(slots_[at] - 1) != wanted) at = (at + 1) & mask;
  return at;
}

void Vocabulary::Grow() {
  const size_t size = slots_.empty() ? kLeastSlots : 2 * slots_.size();
  slots_ = std::vector<uint32_t>();  // before there are more; `= {}` would keep the old memory
  slots_.resize(size);
  for (size_t i = 0; i < entries_.size(); ++i) {
    size_t at = HashOf(text(i)) & (size - 1);
    while (slots_[at] != 0) at = (at + 1) & (size - 1);
    slots_[at] = static_cast<uint32_t>(i + 1);
  }
}

MergeList::MergeList(std::initializer_list<Merge> merges) {
  for (const auto& [left, right] : merges) Add(left, right);
}

bool MergeList::Add(std::string_view left, std::string_view right) {
  if (ends_.size() >= kMaxMerges || left.size() + right.size() > kMostBytes - bytes_.size()) {
    return false;
  }
  bytes_.append(left);
  const auto middle = static_cast<uint32_t>(bytes_.size());
  bytes_.append(right);
  ends_.push_back({middle, static_cast<uint32_t>(bytes_.size())});
  return true;
}

MergeList::Merge MergeList::operator[](size_t rank) const {
  const std::string_view bytes = bytes_;
  const size_t begin = rank == 0 ? 0 : ends_[rank - 1].right;
  const auto [middle, end] = ends_[rank];
  return {bytes.substr(begin, middle - begin), bytes.substr(middle, end - middle)};
}

}  // namespace sirocco
