#include "graphs/executor.h"
#include "graphs/lane_store.h"
#include "graphs/prefill_sizes.h"
#include "graphs/rotary_table.h"
#include "graphs/step_buffers.h"

namespace sirocco {

MemoryPlan PlanMemory(const ModelDescriptor& descriptor, const ExecutorOptions& options) {
  MemoryPlan plan;
  StepBuffers buffers;
  plan.bytes[static_cast<int>(MemoryUse::kWorkspace)] =
      PlaceStepBuffers(descriptor, options, nullptr, buffers) +
      RotaryTables::Bytes(descriptor, options.max_length) +
      descriptor.layers.size() * sizeof(LayerParams);
  plan.bytes[static_cast<int>(MemoryUse::kLanes)] = LaneStore::Bytes(descriptor, options);
  for (size_t g = 0; g < options.kv_blocks.size(); ++g) {
    plan.bytes[static_cast<int>(MemoryUse::kKv)] +=
        static_cast<uint64_t>(
            KvBlockBytes(descriptor, static_cast<int>(g), options.block_size, options.kv_dtype)) *
        (int64_t{options.kv_blocks[g]} + FillingBlocks(options));
  }
  return plan;
}

}  // namespace sirocco
