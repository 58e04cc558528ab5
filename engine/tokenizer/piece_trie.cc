#include "engine/tokenizer/piece_trie.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"

namespace sirocco {
namespace {

// Entries, by text, that begin alike: those of a node.
struct Range {
  uint32_t begin;
  uint32_t end;
};

}  // namespace

absl::StatusOr<PieceTrie> PieceTrie::Make(const Vocabulary& vocabulary,
                                          std::vector<uint32_t> entries) {
  size_t nodes = 1;  // or fewer
  for (const uint32_t entry : entries) {
    const std::string_view text = vocabulary.text(entry);
    nodes += text.size();
    if (text.size() <= kMaxPiece) continue;
    return absl::InvalidArgumentError(absl::StrCat("entry ", Shown(text), " has ", text.size(),
                                                   " bytes; allowed here: ", kMaxPiece));
  }
  std::sort(entries.begin(), entries.end(),
            [&](uint32_t a, uint32_t b) { return vocabulary.text(a) < vocabulary.text(b); });
  const auto byte_at = [&](size_t i, size_t depth) {
    return static_cast<uint8_t>(vocabulary.text(entries[i])[depth]);
  };
  // The end of the entries that have the byte at `depth` that the one at `begin` has there: their
  // number is doubled until it is too large, so that small ones are found at once.
  const auto end_of_byte = [&](Range range, size_t depth) {
    const uint8_t byte = byte_at(range.begin, depth);
    uint32_t low = range.begin;
    uint32_t step = 1;
    while (low + step < range.end && byte_at(low + step, depth) == byte) {
      low += step;
      step *= 2;
    }
    uint32_t high = std::min(low + step, range.end);
    while (high - low > 1) {
      const uint32_t middle = low + (high - low) / 2;
      (byte_at(middle, depth) == byte ? low : high) = middle;
    }
    return high;
  };
  PieceTrie trie;
  nodes = std::min(nodes, kMaxNodes + 256);  // no more are made before they are too many
  trie.first_child_.clear();
  trie.first_child_.reserve(nodes + 1);
  trie.bytes_.reserve(nodes);
  trie.entries_.reserve(nodes);
  std::vector<Range> level = {{0, static_cast<uint32_t>(entries.size())}};
  for (size_t depth = 0; !level.empty(); ++depth) {
    std::vector<Range> next;
    for (Range range : level) {
      const size_t node = trie.first_child_.size();
      trie.first_child_.push_back(static_cast<uint32_t>(trie.bytes_.size()));
      if (range.begin < range.end && vocabulary.text(entries[range.begin]).size() == depth) {
        trie.entries_[node] = static_cast<int32_t>(entries[range.begin++]);
      }
      while (range.begin < range.end) {
        const uint32_t end = end_of_byte(range, depth);
        trie.bytes_.push_back(static_cast<char>(byte_at(range.begin, depth)));
        trie.entries_.push_back(-1);
        next.push_back({range.begin, end});
        range.begin = end;
      }
      if (trie.bytes_.size() <= kMaxNodes) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("its entries have more than ", kMaxNodes, " different beginnings"));
    }
    level = std::move(next);
  }
  trie.first_child_.push_back(static_cast<uint32_t>(trie.bytes_.size()));
  return trie;
}

bool PieceTrie::Step(char byte, uint32_t* node) const {
  const uint32_t begin = first_child_[*node];
  const size_t count = first_child_[*node + 1] - begin;
  if (count == 0) return false;
  const char* bytes = bytes_.data() + begin;
  const auto* found = static_cast<const char*>(std::memchr(bytes, byte, count));
  if (found == nullptr) return false;
  *node = begin + static_cast<uint32_t>(found - bytes);
  return true;
}

}  // namespace sirocco
