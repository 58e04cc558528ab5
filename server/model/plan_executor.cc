#include "server/model/plan_executor.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/log/log.h"
#include "server/model/memory.h"

namespace sirocco {

absl::StatusOr<ExecutorOptions> PlanExecutorOptions(const Config& config,
                                                    const ModelDescriptor& descriptor,
                                                    const WeightTypes& weights,
                                                    const ModelDTypes& dtypes, const Device& device,
                                                    ExecutorOptions wanted) {
  ExecutorOptions options = std::move(wanted);
  options.prefill_chunk_size = static_cast<int32_t>(config.prefill_chunk_size);
  options.block_size = static_cast<int32_t>(config.block_size);
  options.kv_dtype = dtypes.kv;
  options.activation_dtype = dtypes.activations;
  options.prefill_as_decode = device.prefill_as_decode();
  options.fill_prefill = device.fills_prefill();
  absl::StatusOr<MemoryTable> table = PlanDeviceMemory({.descriptor = descriptor,
                                                        .weights = weights,
                                                        .options = options,
                                                        .kv_bytes = config.kv_cache_memory,
                                                        .fraction = config.memory_fraction},
                                                       DeviceMemory::Of(device));
  if (!table.ok()) return table.status();
  for (const std::string& line : table->Lines()) LogInfo(absl::StrCat("memory plan: ", line));
  options.kv_blocks = std::move(table->kv_blocks);
  return options;
}

}  // namespace sirocco
