// What an executor is to hold, as a configuration and the device's memory allow.
#pragma once

#include "absl/status/statusor.h"
#include "engine/model/weight_places.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "kernels/device.h"
#include "server/config/config.h"
#include "server/model/dtypes.h"

namespace sirocco {

// `wanted` says mode, max_batch_size and max_length; the rest is the configuration's, and the KV
// blocks those that fit. Logs the memory plan. Errors as PlanDeviceMemory's.
absl::StatusOr<ExecutorOptions> PlanExecutorOptions(const Config& config,
                                                    const ModelDescriptor& descriptor,
                                                    const WeightTypes& weights,
                                                    const ModelDTypes& dtypes, const Device& device,
                                                    ExecutorOptions wanted);

}  // namespace sirocco
