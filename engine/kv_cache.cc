#include "engine/kv_cache.h"

#include <algorithm>

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

KvCache::KvCache(int32_t block_size, const std::vector<int32_t>& blocks) : block_size_(block_size) {
  pools_.reserve(blocks.size());
  for (int32_t count : blocks) pools_.emplace_back(count);
}

bool KvCache::CanEverHold(int32_t slots) const {
  return std::all_of(pools_.begin(), pools_.end(),
                     [&](const BlockPool& pool) { return pool.total() >= BlocksFor(slots); });
}

std::optional<BlockTable> KvCache::Reserve(int32_t slots) {
  const int32_t count = BlocksFor(slots);
  for (const BlockPool& pool : pools_) {
    if (pool.unpromised() < count) return std::nullopt;
  }
  for (BlockPool& pool : pools_) pool.Promise(count);
  BlockTable table;
  table.reserved = count;
  table.blocks.resize(pools_.size());
  // So that a decode step, which may take a block, allocates nothing.
  for (std::vector<int32_t>& blocks : table.blocks) blocks.reserve(count);
  return table;
}

void KvCache::Extend(BlockTable& table, int32_t slots, int32_t lane,
                     std::vector<BlockUpdate>* updates) {
  const int32_t count = BlocksFor(slots);
  for (size_t group = 0; group < pools_.size(); ++group) {
    std::vector<int32_t>& blocks = table.blocks[group];
    while (static_cast<int32_t>(blocks.size()) < count) {
      const int32_t block = pools_[group].TakePromised();
      updates->push_back({.lane = lane,
                          .group = static_cast<int32_t>(group),
                          .logical = static_cast<int32_t>(blocks.size()),
                          .physical = block});
      blocks.push_back(block);
    }
  }
}

void KvCache::Free(BlockTable& table) {
  for (size_t group = 0; group < pools_.size(); ++group) {
    std::vector<int32_t>& blocks = table.blocks[group];
    pools_[group].Unpromise(table.reserved - static_cast<int32_t>(blocks.size()));
    pools_[group].Give(blocks);
    blocks.clear();
  }
  table.reserved = 0;
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
