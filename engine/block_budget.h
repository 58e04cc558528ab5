// How many KV blocks a memory budget allows.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "kernels/dtype.h"

namespace sirocco {

// Blocks of each layer group: what `max_batch_size` sequences of `max_length` tokens need, or as
// many as `memory_bytes` hold where that is less. RESOURCE_EXHAUSTED, with the figures, where not
// even one sequence of max_length fits. All counts must be positive.
absl::StatusOr<std::vector<int32_t>> PlanKvBlocks(const ModelDescriptor& descriptor,
                                                  int32_t block_size, DType kv_dtype,
                                                  int32_t max_batch_size, int32_t max_length,
                                                  uint64_t memory_bytes);

}  // namespace sirocco
