// The KV cache's books: which blocks are free, promised or taken. No memory is held here; the
// executor owns it. Engine thread, except where said.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "engine/sequence_blocks.h"
#include "graphs/descriptor.h"
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
  std::vector<std::vector<int32_t>> blocks;  // [group][i]: taken
  std::vector<int32_t> reserved;             // [group]: taken and promised
  int32_t logical = 0;                       // logical blocks, of every group, that are told
};

class KvCache {
 public:
  // `blocks`: of each layer group. `groups`: which of them have windows; none, where it is empty.
  // No step brings more than `prefill_chunk_size` positions of a sequence.
  KvCache(int32_t block_size, const std::vector<int32_t>& blocks,
          std::vector<LayerGroup> groups = {}, int32_t prefill_chunk_size = 1);

  // Whether a sequence of this many slots could have its blocks if it were alone. Any thread.
  bool CanEverHold(int32_t slots) const;

  // Promises the blocks for `slots`, so that a sequence once admitted never waits for one. None:
  // not now.
  std::optional<BlockTable> Reserve(int32_t slots);

  // Makes the first `slots` (at most what was reserved) have their blocks: takes promised ones,
  // and where a window has passed the sequence's own again (SequenceBlocks). Tells of each.
  void Extend(BlockTable& table, int32_t slots, int32_t lane, std::vector<BlockUpdate>* updates);

  // Gives back what was taken and promised. No step that uses it may be running.
  void Free(BlockTable& table);

  // Over all groups.
  int64_t used_blocks() const;
  int64_t total_blocks() const;

 private:
  // Of this group, for a sequence of this many slots.
  int32_t BlocksFor(size_t group, int32_t slots) const {
    return SequenceBlocks(groups_[group], slots, block_size_, prefill_chunk_size_);
  }

  int32_t block_size_;
  int32_t prefill_chunk_size_;
  std::vector<LayerGroup> groups_;
  std::vector<BlockPool> pools_;  // by layer group
};

}  // namespace sirocco
