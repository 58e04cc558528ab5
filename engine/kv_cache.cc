#include "engine/kv_cache.h"

#include <algorithm>
#include <utility>

namespace sirocco {

BlockPool::BlockPool(int32_t blocks) : total_(blocks) {
  free_.reserve(blocks);
  for (int32_t block = blocks - 1; block >= 0; --block) free_.push_back(block);
}

int32_t BlockPool::TakePromised() {
  --promised_;
  const int32_t block = free_.back();
  free_.pop_back();
  return block;
}

void BlockPool::Give(const std::vector<int32_t>& blocks) {
  free_.insert(free_.end(), blocks.begin(), blocks.end());
}

KvCache::KvCache(int32_t block_size, const std::vector<int32_t>& blocks,
                 std::vector<LayerGroup> groups, int32_t prefill_chunk_size)
    : block_size_(block_size), prefill_chunk_size_(prefill_chunk_size), groups_(std::move(groups)) {
  groups_.resize(blocks.size());
  pools_.reserve(blocks.size());
  for (int32_t count : blocks) pools_.emplace_back(count);
}

bool KvCache::CanEverHold(int32_t slots) const {
  for (size_t group = 0; group < pools_.size(); ++group) {
    if (pools_[group].total() < BlocksFor(group, slots)) return false;
  }
  return true;
}

std::optional<BlockTable> KvCache::Reserve(int32_t slots) {
  BlockTable table;
  for (size_t group = 0; group < pools_.size(); ++group) {
    table.reserved.push_back(BlocksFor(group, slots));
    if (pools_[group].unpromised() < table.reserved.back()) return std::nullopt;
  }
  table.blocks.resize(pools_.size());
  for (size_t group = 0; group < pools_.size(); ++group) {
    pools_[group].Promise(table.reserved[group]);
    // So that a decode step, which may take a block, allocates nothing.
    table.blocks[group].reserve(table.reserved[group]);
  }
  return table;
}

void KvCache::Extend(BlockTable& table, int32_t slots, int32_t lane,
                     std::vector<BlockUpdate>* updates) {
  const int32_t end = SequenceBlocks(LayerGroup(), slots, block_size_, prefill_chunk_size_);
  for (size_t group = 0; group < pools_.size(); ++group) {
    std::vector<int32_t>& blocks = table.blocks[group];
    for (int32_t logical = table.logical; logical < end; ++logical) {
      if (logical < table.reserved[group]) blocks.push_back(pools_[group].TakePromised());
      updates->push_back({.lane = lane,
                          .group = static_cast<int32_t>(group),
                          .logical = logical,
                          .physical = blocks[logical % table.reserved[group]]});
    }
  }
  table.logical = std::max(table.logical, end);
}

void KvCache::Free(BlockTable& table) {
  for (size_t group = 0; group < pools_.size(); ++group) {
    const std::vector<int32_t>& blocks = table.blocks[group];
    pools_[group].Unpromise(table.reserved[group] - static_cast<int32_t>(blocks.size()));
    pools_[group].Give(blocks);
  }
  table = BlockTable();
}

int64_t KvCache::used_blocks() const {
  int64_t used = 0;
  for (const BlockPool& pool : pools_) used += pool.used();
  return used;
}

int64_t KvCache::total_blocks() const {
  int64_t total = 0;
  for (const BlockPool& pool : pools_) total += pool.total();
  return total;
}

}  // namespace sirocco
