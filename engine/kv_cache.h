// The KV cache's books: which blocks are free, promised or taken. No memory is held here; the
// executor owns it. Engine thread, except where said.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/lanes.h"

namespace sirocco {

// The blocks of one layer group.
class BlockPool {
 public:
  explicit BlockPool(int32_t blocks);

  int32_t total() const { return total_; }
  int32_t used() const { return total_ - static_cast<int32_t>(free_.size()); }
  // Free blocks that nobody was promised.
  int32_t unpromised() const { return static_cast<int32_t>(free_.size()) - promised_; }

  void Promise(int32_t count) { promised_ += count; }
  void Unpromise(int32_t count) { promised_ -= count; }
  int32_t TakePromised();  // some promise must be left
  void Give(const std::vector<int32_t>& blocks);

 private:
  int32_t total_;
  int32_t promised_ = 0;
  std::vector<int32_t> free_;  // the last is taken next
};

// What one sequence has of the cache. Made by KvCache::Reserve, ended by KvCache::Free.
struct BlockTable {
  std::vector<std::vector<int32_t>> blocks;  // [group][logical]: taken
  int32_t reserved = 0;                      // blocks of each group: taken and promised
};

class KvCache {
 public:
  // `blocks`: of each layer group.
  KvCache(int32_t block_size, const std::vector<int32_t>& blocks);

  // Whether a sequence of this many slots could have its blocks if it were alone. Any thread.
  bool CanEverHold(int32_t slots) const;

  // Promises the blocks for `slots`, so that a sequence once admitted never waits for one. None:
  // not now.
  std::optional<BlockTable> Reserve(int32_t slots);

  // Takes promised blocks until the first `slots` (at most what was reserved) have theirs, and
  // tells of each.
  void Extend(BlockTable& table, int32_t slots, int32_t lane, std::vector<BlockUpdate>* updates);

  // Gives back what was taken and promised. No step that uses it may be running.
  void Free(BlockTable& table);

  // Over all groups.
  int64_t used_blocks() const;
  int64_t total_blocks() const;

 private:
  int32_t BlocksFor(int32_t slots) const { return (slots + block_size_ - 1) / block_size_; }

  int32_t block_size_;
  std::vector<BlockPool> pools_;  // by layer group
};

}  // namespace sirocco
