#include "engine/block_pool.h"

#include <bit>

namespace sirocco {

BlockPool::BlockPool(int32_t blocks)
    : blocks_(static_cast<size_t>(blocks) + 1), buckets_(std::bit_ceil(size_t{1} + blocks), -1) {
  free_.reserve(blocks);
  for (int32_t block = blocks - 1; block >= 0; --block) free_.push_back(block);
  blocks_.back().before = blocks_.back().after = blocks;
}

int32_t BlockPool::Take() {
  int32_t block;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else {
    block = blocks_.back().after;
    LeaveCached(block);
    Forget(block);
  }
  blocks_[block].users = 1;
  return block;
}

void BlockPool::Share(int32_t block) {
  if (++blocks_[block].users == 1) LeaveCached(block);
}

void BlockPool::Release(int32_t block) {
  Block& released = blocks_[block];
  if (--released.users > 0) return;
  if (!released.named) {
    free_.push_back(block);
    return;
  }
  Block& end = blocks_.back();
  released.before = end.before;
  released.after = total();
  blocks_[end.before].after = block;
  end.before = block;
  ++cached_;
}

void BlockPool::LeaveCached(int32_t block) {
  const Block& leaving = blocks_[block];
  blocks_[leaving.before].after = leaving.after;
  blocks_[leaving.after].before = leaving.before;
  --cached_;
}

void BlockPool::Name(int32_t block, const BlockHash& name) {
  if (blocks_[block].named || Find(name) >= 0) return;
  int32_t& first = buckets_[BucketOf(name)];
  blocks_[block].name = name;
  blocks_[block].named = true;
  blocks_[block].next_in_bucket = first;
  first = block;
}

int32_t BlockPool::Find(const BlockHash& name) const {
  int32_t block = buckets_[BucketOf(name)];
  while (block >= 0 && !(blocks_[block].name == name)) block = blocks_[block].next_in_bucket;
  return block;
}

void BlockPool::Forget(int32_t block) {
  int32_t* link = &buckets_[BucketOf(blocks_[block].name)];
  while (*link != block) link = &blocks_[*link].next_in_bucket;
  *link = blocks_[block].next_in_bucket;
  blocks_[block].named = false;
}

}  // namespace sirocco
