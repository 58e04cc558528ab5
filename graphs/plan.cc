#include "graphs/plan.h"

#include <string>
#include <variant>

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

std::string TextOf(const RowRange& rows) {
  const RowRange any;
  if (rows.most != any.most) return absl::StrCat("R ", rows.least, " to ", rows.most);
  return rows.least == any.least ? "" : absl::StrCat("R from ", rows.least);
}

absl::Status RunEntry(const Plan::Entry& entry, Ops& ops, int32_t rows) {
  if (!entry.rows.Has(rows)) return absl::OkStatus();
  return std::visit(
      [&](auto params) {  // a copy: plain data, and the plan stays as composed
        params.rows = rows;
        return ops.Run(params);
      },
      entry.operation);
}

}  // namespace

absl::Status Plan::Run(Ops& ops, int32_t rows) const {
  for (const Entry& entry : entries_) {
    if (absl::Status status = RunEntry(entry, ops, rows); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Plan::RunSome(Ops& ops, int32_t rows, const std::vector<bool>& layers) const {
  for (const Entry& entry : entries_) {
    if (entry.layer != kNoLayer && !layers[entry.layer]) continue;
    if (absl::Status status = RunEntry(entry, ops, rows); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void Plan::Describe(std::vector<PlanEntry>& out) const {
  for (const Entry& entry : entries_) {
    out.push_back({entry.part, TextOf(entry.rows), std::string(NameOf(entry.operation)),
                   DetailOf(entry.operation)});
  }
}

}  // namespace sirocco
