// How decode attention cuts the slots that a row sees into splits, which thread blocks attend to
// side by side and merge afterwards. Many rows keep a GPU busy by themselves and have splits of 256
// slots; few rows are cut finer. A row's splits depend on its own slots and on the number of rows,
// never on the lengths of other rows.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sirocco::cuda {

// Sizes of splits are powers of two. The largest is what a thread block attends to at once.
inline constexpr int kSplitBits = 8;
inline constexpr int kSplitSlots = 1 << kSplitBits;
inline constexpr int kLeastSplitBits = 5;  // kSplitBits: no row is cut finer

// Where rows are few, so many blocks get a split: the multiprocessors of an H100 or H200.
inline constexpr int32_t kFineBlocks = 132;
// One block merges all splits of a row: more of them would take it longer than the others gain.
inline constexpr int32_t kMostFineSplits = 32;

// Splits that a row may have before they become larger than the least. `pairs`: of rows and of the
// groups of query heads that a block takes.
constexpr int32_t FineSplitsFor(int64_t pairs) {
  return static_cast<int32_t>(std::clamp<int64_t>(kFineBlocks / pairs, 1, kMostFineSplits));
}

// The size of splits of slots first ... position: the least that makes no more than `fine_splits`,
// or 256. Splits begin at multiples of it.
constexpr int SplitBitsOf(int32_t first, int32_t position, int32_t fine_splits) {
  int bits = kLeastSplitBits;
  while (bits < kSplitBits && (position >> bits) - (first >> bits) >= fine_splits) ++bits;
  return bits;
}

// The most splits that a row of up to max_length slots can have.
constexpr int32_t MostSplits(int32_t max_length, int32_t fine_splits) {
  const auto splits = [&](int bits) { return ((max_length - 1) >> bits) + 1; };
  return std::max(splits(kSplitBits), std::min(splits(kLeastSplitBits), fine_splits));
}

// No less than the splits of all pairs, where they are 1 ... `pairs`: fewer may be cut finer.
constexpr int64_t MostSplitsOfAll(int64_t pairs, int32_t max_length) {
  return std::max<int64_t>(pairs * MostSplits(max_length, 1), kFineBlocks);
}

}  // namespace sirocco::cuda
