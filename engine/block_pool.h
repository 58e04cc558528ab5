// The blocks of one layer group: which are free, which are in use and by how many, and which hold
// what somebody may want again. No memory is held here; the executor owns it. Engine thread.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/prefix_hash.h"

namespace sirocco {

// A block is *free*, *used* by one sequence or more, or *cached*: its content has a name, and
// nobody uses it. Nothing allocates after the construction.
class BlockPool {
 public:
  explicit BlockPool(int32_t blocks);

  int32_t total() const { return static_cast<int32_t>(blocks_.size()) - 1; }
  int32_t cached() const { return cached_; }
  int32_t used() const { return total() - available(); }
  // That Take can give.
  int32_t available() const { return static_cast<int32_t>(free_.size()) + cached_; }

  // A block for one user to write: a free one, else the one that nobody has used for longest, whose
  // content is forgotten. available() must not be 0.
  int32_t Take();
  // One more user, who only reads: of a used or a cached block.
  void Share(int32_t block);
  // One user less. After the last a block whose content has a name is cached, another one free.
  void Release(int32_t block);

  // The block holds what `name` says, and will while it is not free. Where another block holds the
  // same already, this one stays without a name.
  void Name(int32_t block, const BlockHash& name);
  // The block of that name; -1: there is none.
  int32_t Find(const BlockHash& name) const;
  bool in_use(int32_t block) const { return users(block) > 0; }
  int32_t users(int32_t block) const { return blocks_[block].users; }

 private:
  struct Block {
    BlockHash name;
    int32_t users = 0;
    int32_t next_in_bucket = -1;
    int32_t before = -1, after = -1;  // cached: in the order of use, a ring through the last entry
    bool named = false;
  };

  size_t BucketOf(const BlockHash& name) const { return name.low & (buckets_.size() - 1); }
  void Forget(int32_t block);       // its name
  void LeaveCached(int32_t block);  // the ring

  std::vector<Block> blocks_;     // and one more: the ring's begin and end
  std::vector<int32_t> free_;     // the last is taken next
  std::vector<int32_t> buckets_;  // the first named block of each; a power of two of them
  int32_t cached_ = 0;
};

}  // namespace sirocco
