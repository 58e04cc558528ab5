#include "graphs/plan.h"

#include <variant>

namespace sirocco {

absl::Status Plan::Run(Ops& ops, int32_t rows) const {
  for (const Entry& entry : entries_) {
    absl::Status status = std::visit(
        [&](auto params) {  // a copy: plain data, and the plan stays as composed
          params.rows = rows;
          return ops.Run(params);
        },
        entry.operation);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void Plan::Describe(std::vector<PlanEntry>& out) const {
  for (const Entry& entry : entries_) {
    out.push_back({entry.part, std::string(NameOf(entry.operation)), DetailOf(entry.operation)});
  }
}

}  // namespace sirocco
