// How many KV blocks a memory budget allows.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"

namespace sirocco {

// Blocks of each layer group: what `max_batch_size` sequences of `max_length` tokens need
// (SequenceBlocks). Where `memory_bytes` hold less, all groups have the same number, but none more
// than that, nor less than one such sequence needs: short sequences take as many of each.
// RESOURCE_EXHAUSTED, with the figures, where not even one sequence of max_length fits. All counts
// in `options` must be positive; its kv_blocks do not count.
absl::StatusOr<std::vector<int32_t>> PlanKvBlocks(const ModelDescriptor& descriptor,
                                                  const ExecutorOptions& options,
                                                  uint64_t memory_bytes);

}  // namespace sirocco
