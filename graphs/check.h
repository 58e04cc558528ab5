// What Executor::Create refuses, before anything is allocated.
#pragma once

#include "absl/status/status.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "graphs/weights.h"

namespace sirocco {

// Shapes that the plans rely on: sizes are positive, groups and rotaries exist, heads divide, and
// no buffer's size overflows.
absl::Status CheckDescriptor(const ModelDescriptor& descriptor);

// INVALID_ARGUMENT names the option, its value and the range.
absl::Status CheckOptions(const ModelDescriptor& descriptor, const ExecutorOptions& options);

// The weights have the descriptor's shapes.
absl::Status CheckWeights(const ModelDescriptor& descriptor, const ModelWeights& weights);

}  // namespace sirocco
