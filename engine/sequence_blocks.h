// How many blocks of a layer group one sequence takes.
#pragma once

#include <cstdint>

#include "graphs/descriptor.h"

namespace sirocco {

// As many as hold `slots` slots. Where the group's layers see only the last `window` positions, no
// more than hold a window, the chunk of a prompt that one step brings (all its keys and values are
// written before a row reads any) and the row of a step that runs ahead, wherever in a block they
// begin; a longer sequence uses these in turn: its logical block i is the (i mod count)-th of them.
int32_t SequenceBlocks(const LayerGroup& group, int32_t slots, int32_t block_size,
                       int32_t prefill_chunk_size);

}  // namespace sirocco
