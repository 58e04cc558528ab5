#include "engine/kv_cache.h"

#include <algorithm>
#include <utility>

namespace sirocco {

KvCache::KvCache(int32_t block_size, const std::vector<int32_t>& blocks,
                 std::vector<LayerGroup> groups, int32_t prefill_chunk_size)
    : block_size_(block_size), prefill_chunk_size_(prefill_chunk_size), groups_(std::move(groups)) {
  groups_.resize(blocks.size());
  pools_.reserve(blocks.size());
  for (int32_t count : blocks) pools_.emplace_back(count);
}

bool KvCache::CanEverHold(int32_t slots, int32_t sequences) const {
  for (size_t group = 0; group < pools_.size(); ++group) {
    if (pools_[group].total() < int64_t{sequences} * BlocksFor(group, slots)) return false;
  }
  return true;
}

bool KvCache::HasRoom(std::span<const BlockHash> names, int32_t slots,
                      std::span<const Need> tables) const {
  const int32_t shared = FindBeginning(names, 0);
  for (size_t group = 0; group < pools_.size(); ++group) {
    int64_t needed = BlocksFor(group, slots);
    // A shared block that nobody uses now is among those that can be had, and so must be counted;
    // one that a window will pass is no help, since others may go on using it.
    const int32_t stays = groups_[group].window == 0 ? shared : 0;
    for (int32_t logical = 0; logical < stays; ++logical) {
      needed -= pools_[group].in_use(pools_[group].Find(names[logical]));
    }
    for (const Need& other : tables) {
      const int32_t has = other.table->logical() - other.table->first[group];
      needed += std::max(0, BlocksFor(group, other.slots) - has);
    }
    if (needed > pools_[group].available()) return false;
  }
  return true;
}

BlockTable KvCache::MakeTable(int32_t slots) const {
  BlockTable table;
  table.blocks.resize(pools_.size());
  table.first.assign(pools_.size(), 0);
  // So that a decode step, which may take a block, allocates nothing.
  const int32_t most = SequenceBlocks(LayerGroup(), slots, block_size_, prefill_chunk_size_);
  for (std::vector<int32_t>& blocks : table.blocks) blocks.reserve(most);
  return table;
}

int32_t KvCache::FirstSeen(size_t group, int32_t position) const {
  const int32_t window = groups_[group].window;
  return window > 0 ? std::max(0, position + 1 - window) / block_size_ : 0;
}

int32_t KvCache::FindBeginning(std::span<const BlockHash> names, int32_t have) const {
  int32_t found = have;
  std::vector<int32_t> run(pools_.size(), 0);  // of each group: blocks in a row that are there
  for (int32_t logical = have; logical < static_cast<int32_t>(names.size()); ++logical) {
    bool all_seen = true;
    for (size_t group = 0; group < pools_.size(); ++group) {
      run[group] = pools_[group].Find(names[logical]) >= 0 ? run[group] + 1 : 0;
      if (groups_[group].window == 0 && run[group] == 0) return found;
      const int32_t first = std::max(have, FirstSeen(group, (logical + 1) * block_size_));
      all_seen &= run[group] >= logical + 1 - first;
    }
    if (all_seen) found = logical + 1;
  }
  return found;
}

int32_t KvCache::Share(BlockTable& table, std::span<const BlockHash> names) {
  const int32_t have = table.logical();
  const int32_t found = FindBeginning(names, have);
  for (size_t group = 0; found > have && group < pools_.size(); ++group) {
    std::vector<int32_t>& blocks = table.blocks[group];
    const int32_t first = std::max(have, FirstSeen(group, found * block_size_));
    blocks.resize(first, -1);
    for (int32_t logical = first; logical < found; ++logical) {
      blocks.push_back(pools_[group].Find(names[logical]));
      pools_[group].Share(blocks.back());
    }
  }
  table.named = std::max(table.named, found);
  DropPassed(table, found * block_size_);
  return found * block_size_;
}

void KvCache::Drop(BlockTable& table, size_t group, int32_t logical) {
  int32_t& block = table.blocks[group][logical];
  if (block >= 0) pools_[group].Release(block);
  block = -1;
}

void KvCache::DropPassed(BlockTable& table, int32_t first_position) {
  for (size_t group = 0; group < pools_.size(); ++group) {
    int32_t& first = table.first[group];
    for (; first < FirstSeen(group, first_position); ++first) Drop(table, group, first);
  }
}

void KvCache::Fork(const BlockTable& parent, BlockTable& table) {
  DropAll(table);
  for (size_t group = 0; group < pools_.size(); ++group) {
    table.blocks[group].assign(parent.blocks[group].begin(), parent.blocks[group].end());
    for (const int32_t block : table.blocks[group]) {
      if (block >= 0) pools_[group].Share(block);
    }
  }
  table.first = parent.first;
  table.told = parent.told;
  table.named = parent.named;
}

bool KvCache::SharedBlock(const BlockTable& table, size_t group, int32_t logical) const {
  const std::vector<int32_t>& blocks = table.blocks[group];
  return logical < static_cast<int32_t>(blocks.size()) && blocks[logical] >= 0 &&
         pools_[group].users(blocks[logical]) > 1;
}

bool KvCache::Shares(const BlockTable& table, int32_t position) const {
  for (size_t group = 0; group < pools_.size(); ++group) {
    if (SharedBlock(table, group, position / block_size_)) return true;
  }
  return false;
}

bool KvCache::Extend(BlockTable& table, int32_t first_position, int32_t slots, int32_t lane,
                     std::vector<BlockUpdate>* updates, std::vector<BlockCopy>* copies) {
  DropPassed(table, first_position);
  const int32_t end = SequenceBlocks(LayerGroup(), slots, block_size_, prefill_chunk_size_);
  const int32_t missing = Missing(table, slots);
  const int32_t begin = first_position / block_size_;
  for (size_t group = 0; group < pools_.size(); ++group) {
    const int32_t own = copies != nullptr && SharedBlock(table, group, begin) ? 1 : 0;
    if (pools_[group].available() < missing + own) return false;
  }
  for (size_t group = 0; group < pools_.size(); ++group) {
    std::vector<int32_t>& blocks = table.blocks[group];
    if (copies != nullptr && SharedBlock(table, group, begin)) {
      const int32_t shared = blocks[begin];
      blocks[begin] = pools_[group].Take();
      copies->push_back(
          {.group = static_cast<int32_t>(group), .from = shared, .to = blocks[begin]});
      pools_[group].Release(shared);
      // The lane knows of the other block.
      table.told = std::min(table.told, begin);
    }
    for (int32_t i = 0; i < missing; ++i) blocks.push_back(pools_[group].Take());
    for (int32_t logical = table.told; logical < end; ++logical) {
      if (blocks[logical] < 0) continue;
      updates->push_back({.lane = lane,
                          .group = static_cast<int32_t>(group),
                          .logical = logical,
                          .physical = blocks[logical]});
    }
  }
  table.told = std::max(table.told, end);
  return true;
}

void KvCache::Name(BlockTable& table, std::span<const BlockHash> names) {
  for (; table.named < static_cast<int32_t>(names.size()); ++table.named) {
    for (size_t group = 0; group < pools_.size(); ++group) {
      const int32_t block = table.blocks[group][table.named];
      if (block >= 0) pools_[group].Name(block, names[table.named]);
    }
  }
}

void KvCache::DropAll(BlockTable& table) {
  for (size_t group = 0; group < pools_.size(); ++group) {
    // From the end: a beginning is of use without what follows, so it is to be forgotten last.
    for (int32_t logical = table.logical(); logical-- > table.first[group];) {
      Drop(table, group, logical);
    }
  }
}

void KvCache::Free(BlockTable& table) {
  DropAll(table);
  table = MakeTable(0);
}

int64_t KvCache::used_blocks() const {
  int64_t used = 0;
  for (const BlockPool& pool : pools_) used += pool.used();
  return used;
}

int64_t KvCache::cached_blocks() const {
  int64_t cached = 0;
  for (const BlockPool& pool : pools_) cached += pool.cached();
  return cached;
}

int64_t KvCache::total_blocks() const {
  int64_t total = 0;
  for (const BlockPool& pool : pools_) total += pool.total();
  return total;
}

}  // namespace sirocco
