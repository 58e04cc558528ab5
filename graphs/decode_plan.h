// A mode's decode step: plans, and the order in which they run. A mode with graphs and its twin
// without use the same object, one through recordings of it: same work, same bits.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "graphs/compose.h"
#include "graphs/mode.h"
#include "graphs/plan.h"
#include "kernels/ops.h"

namespace sirocco {

struct DecodePlan {
  // What is recorded apart: the whole step, or prologue, each layer kind (layers that share shapes;
  // windows, rotary tables and pointers are data) and epilogue.
  std::vector<Plan> parts;
  std::vector<int32_t> order;  // indices of `parts`: a layer's part comes once a layer
  std::vector<bool> distinct;  // DistinctLayers of the layers that the parts name

  absl::Status Run(Ops& ops, int32_t rows) const;
  std::vector<PlanEntry> Describe() const;
};

DecodePlan ComposeDecode(Mode mode, const ComposeContext& context);

}  // namespace sirocco
