#include "engine/sequence_blocks.h"

#include <algorithm>

namespace sirocco {
namespace {

int64_t BlocksOf(int64_t slots, int32_t block_size) {
  return (slots + block_size - 1) / block_size;
}

}  // namespace

int32_t SequenceBlocks(const LayerGroup& group, int32_t slots, int32_t block_size,
                       int32_t prefill_chunk_size) {
  int64_t blocks = BlocksOf(slots, block_size);
  if (group.window > 0) {
    // n slots of which the first is a block's last lie in 1 + BlocksOf(n - 1) blocks.
    const int64_t live = int64_t{group.window} + prefill_chunk_size;
    blocks = std::min(blocks, 1 + BlocksOf(live - 1, block_size));
  }
  return static_cast<int32_t>(blocks);
}

}  // namespace sirocco
