// The KV cache's books: which sequence has which blocks, and which blocks hold the beginning of a
// prompt that may come again. No memory is held here; the executor owns it. Engine thread, except
// where said.
//
// The beginning of a sequence may be shared: full blocks whose tokens, and all tokens before them,
// are the same. They are only read. A prompt's last, partial block is never shared but computed
// again: that is less than a block of tokens in a prefill that computes at least one token anyway.
// Beams, which go on from one another after every step, share all blocks instead, and copy the one
// in which two of them write (Fork).
//
// A layer group with a window needs, to go on from some block, only the blocks that its window
// shows from there. So a sequence gives back the blocks that its windows have passed, and a
// beginning is shared where every group still has what it needs there: of full attention all of it.
//
// The device runs steps in the order of their launch. So a block may be read by a step as soon as
// the one that writes it is launched, or in the same one (graphs/step.h); and what a window has
// passed may be given away while the last step that saw it still runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/block_pool.h"
#include "engine/sequence_blocks.h"
#include "graphs/descriptor.h"
#include "graphs/step.h"
#include "kernels/lanes.h"

namespace sirocco {

// What one sequence has of the cache. Made by KvCache::MakeTable, ended by KvCache::Free.
struct BlockTable {
  std::vector<std::vector<int32_t>> blocks;  // [group][logical]; -1: a window has passed it
  std::vector<int32_t> first;                // [group]: the first that no window has passed
  int32_t told = 0;                          // logical blocks of which the lane knows
  int32_t named = 0;                         // logical blocks whose content has been named

  int32_t logical() const { return static_cast<int32_t>(blocks.front().size()); }
};

class KvCache {
 public:
  // `blocks`: of each layer group, of which there is one at least. `groups`: which of them have
  // windows; none, where it is empty. No step brings more than `prefill_chunk_size` positions of a
  // sequence.
  KvCache(int32_t block_size, const std::vector<int32_t>& blocks,
          std::vector<LayerGroup> groups = {}, int32_t prefill_chunk_size = 1);

  // Whether so many sequences of this many slots, which share nothing, could have their blocks if
  // they were alone. Any thread.
  bool CanEverHold(int32_t slots, int32_t sequences = 1) const;

  // Whether a sequence whose full blocks have these names, and which has nothing yet, could have
  // its blocks up to `slots` beside those that are to have more (`tables`, each up to its slots).
  struct Need {
    const BlockTable* table = nullptr;
    int32_t slots = 0;
  };
  bool HasRoom(std::span<const BlockHash> names, int32_t slots, std::span<const Need> tables) const;

  // The slots of the longest beginning of these names that is there.
  int32_t CachedSlots(std::span<const BlockHash> names) const {
    return FindBeginning(names, 0) * block_size_;
  }

  // An empty table of a sequence that will have at most this many slots.
  BlockTable MakeTable(int32_t slots) const;

  // Puts blocks that are there already behind what the table has: the longest beginning of `names`,
  // the table's own included. Returns the slots that need not be computed.
  int32_t Share(BlockTable& table, std::span<const BlockHash> names);

  // The blocks of each group that a table lacks of `slots`.
  int32_t Missing(const BlockTable& table, int32_t slots) const {
    return SequenceBlocks(LayerGroup(), slots, block_size_, prefill_chunk_size_) - table.logical();
  }

  // For a lane that is forked from the parent's: `table` gives back what it has and shares all that
  // `parent` has, the partial last block too. Whoever of them writes there next gets a copy.
  void Fork(const BlockTable& parent, BlockTable& table);

  // Whether the position lies in a block that others have as well, so that a row which is to write
  // there needs another one.
  bool Shares(const BlockTable& table, int32_t position) const;

  // A step is to compute the positions from `first_position` to before `slots`. Gives back what no
  // later row sees, takes what is missing, and tells of each block that the lane does not know.
  // A first block that others have as well is given back for another one, and what is to be copied
  // there told (`copies` may be null for tables that were never forked). False: blocks are short;
  // nothing was taken or told.
  bool Extend(BlockTable& table, int32_t first_position, int32_t slots, int32_t lane,
              std::vector<BlockUpdate>* updates, std::vector<BlockCopy>* copies = nullptr);

  // The first blocks hold what these names say, or will when the steps launched have ended.
  void Name(BlockTable& table, std::span<const BlockHash> names);

  // Gives back all. No step that uses it may be running.
  void Free(BlockTable& table);

  // Over all groups.
  int64_t used_blocks() const;
  int64_t cached_blocks() const;
  int64_t total_blocks() const;

 private:
  // Of this group, for a sequence of this many slots.
  int32_t BlocksFor(size_t group, int32_t slots) const {
    return SequenceBlocks(groups_[group], slots, block_size_, prefill_chunk_size_);
  }
  // The first block that a row at this position, or a later one, sees.
  int32_t FirstSeen(size_t group, int32_t position) const;
  // The logical blocks of the longest beginning of `names` that is there for a table that has the
  // first `have` of them.
  int32_t FindBeginning(std::span<const BlockHash> names, int32_t have) const;
  void DropPassed(BlockTable& table, int32_t first_position);
  void Drop(BlockTable& table, size_t group, int32_t logical);
  void DropAll(BlockTable& table);
  bool SharedBlock(const BlockTable& table, size_t group, int32_t logical) const;

  int32_t block_size_;
  int32_t prefill_chunk_size_;
  std::vector<LayerGroup> groups_;
  std::vector<BlockPool> pools_;  // by layer group
};

}  // namespace sirocco
