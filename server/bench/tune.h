// Choosing kernels for the matrix products of a model, on the device at hand: `sirocco bench
// --engine --tune FILE`. What comes out is a part of the kernel table, which is compiled in.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "kernels/device.h"
#include "server/bench/measure.h"
#include "server/bench/stage_timer.h"

namespace sirocco {

// Runs a prefill step and a decode step to see the products they are made of, and has `device` tune
// each for every number of rows that a table tells apart. `executor` records no graphs and is on
// `timer`, which stands before `device`; but for an eager one only the decode step counts, since
// all modes prefill alike. Returns entries of the table, a line each.
absl::StatusOr<std::vector<std::string>> TuneModel(Device& device, StageTimer& timer,
                                                   Executor& executor,
                                                   const ModelDescriptor& descriptor, int32_t batch,
                                                   const MeasureOptions& options);

// The table's text with these entries in it: an entry of the same GPU and shape is replaced, all
// are in order, comments stay on top.
std::string MergeKernelTable(std::string_view table, const std::vector<std::string>& entries);

}  // namespace sirocco
