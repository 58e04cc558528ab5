// Operations row by row: a step's begin, embedding, norm, rotary, KV write, activation, addition.

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/split.h"
#include "kernels/cpu/types.h"

namespace sirocco::cpu {
namespace {

// An operation with the rows a task takes.
template <typename Params>
struct ByRows {
  Params p;
  Grid grid;
};

float* RowOf(const Rows& rows, int32_t row) {
  return static_cast<float*>(rows.data) + int64_t{row} * rows.width;
}

template <typename Params, void (*kRow)(const Params&, int32_t row)>
void RunRows(const ByRows<Params>& by_rows, int /*phase*/, int32_t task, const Scratch&) {
  const Grid::Tile tile = by_rows.grid.At(task);
  for (int32_t i = 0; i < tile.rows; ++i) kRow(by_rows.p, tile.first_row + i);
}

template <typename Params, void (*kRow)(const Params&, int32_t row)>
Call RowCall(const Params& p, int32_t width) {
  const ByRows<Params> by_rows{p, RowGrid(p.rows, width)};
  return Call::Of<RunRows<Params, kRow>>(by_rows, {by_rows.grid.tasks()});
}

// Updates come from the host through device memory; one outside the tables must not be written.
absl::Status CheckUpdates(const BeginStepParams& p) {
  if (p.update_count == nullptr) return absl::OkStatus();
  for (int32_t i = 0; i < *p.update_count; ++i) {
    const BlockUpdate& u = p.updates[i];
    if (u.lane < 0 || u.lane >= p.lanes.max_lanes || u.group < 0 || u.group >= p.lanes.groups ||
        u.logical < 0 || u.logical >= p.lanes.max_blocks) {
      return absl::InvalidArgumentError(absl::StrCat("begin_step: block update ", i, " (lane ",
                                                     u.lane, ", group ", u.group, ", logical ",
                                                     u.logical, ") is outside the block tables"));
    }
  }
  return absl::OkStatus();
}

void BeginStep(const BeginStepParams& p, int /*phase*/, int32_t /*task*/, const Scratch&) {
  const int32_t updates = p.update_count == nullptr ? 0 : *p.update_count;
  for (int32_t i = 0; i < updates; ++i) {
    const BlockUpdate& u = p.updates[i];
    const int64_t table = int64_t{u.lane} * p.lanes.groups + u.group;
    p.lanes.block_table[table * p.lanes.max_blocks + u.logical] = u.physical;
  }
  if (p.derive_positions) {
    for (int32_t r = 0; r < p.rows; ++r) {
      p.map.position[r] = p.lanes.lane[p.map.lane[r]].length - 1;
    }
  }
  if (p.layer_counter != nullptr) *p.layer_counter = 0;
}

void EmbedOne(const EmbedParams& p, int32_t row) {
  const int64_t lane = p.map.lane[row];
  const int32_t id = p.lanes.history[lane * p.lanes.max_length + p.map.position[row]];
  EmbedRow(p.table, id, p.scale, RowOf(p.out, row));
}

void NormOne(const RmsNormParams& p, int32_t row) {
  NormRow(RowOf(p.in, row), p.weight, p.epsilon, p.in.width, RowOf(p.out, row));
}

void NormHeads(const HeadNormParams& p, int32_t row) {
  float* heads = RowOf(p.heads, row);
  for (int32_t i = 0; i < p.heads.width; i += p.head_dim) {
    NormRow(heads + i, p.weight, p.epsilon, p.head_dim, heads + i);
  }
}

void AddNormOne(const AddNormParams& p, int32_t row) {
  AddNormRow(RowOf(p.delta, row), p.post_norm, p.epsilon, p.sum.width, RowOf(p.sum, row));
  if (p.weight != nullptr) {
    NormRow(RowOf(p.sum, row), p.weight, p.epsilon, p.sum.width, RowOf(p.normed, row));
  }
}

void TurnOne(const RotaryParams& p, int32_t row) {
  float* heads = RowOf(p.heads, row);
  for (int32_t i = 0; i < p.heads.width; i += p.head_dim) {
    TurnHead(p.table, p.map.position[row], heads + i);
  }
}

void WriteKvOne(const WriteKvParams& p, int32_t row) {
  const int32_t* table = p.lanes.BlockTable(p.map.lane[row], p.kv.group);
  for (int32_t head = 0; head < p.kv.kv_heads; ++head) {
    const int32_t at = head * p.kv.head_dim;
    StoreKv(p.kv, table, p.map.position[row], head, false, RowOf(p.k, row) + at);
    StoreKv(p.kv, table, p.map.position[row], head, true, RowOf(p.v, row) + at);
  }
}

void AddOne(const AddParams& p, int32_t row) {
  AddTo(RowOf(p.sum, row), RowOf(p.delta, row), p.sum.width);
}

void ActivateOne(const GatedActivationParams& p, int32_t row) {
  GatedActivationRow(p.activation, RowOf(p.gate, row), RowOf(p.up, row), p.out.width,
                     RowOf(p.out, row));
}

void GatherOne(const GatherRowsParams& p, int32_t row) {
  std::memcpy(RowOf(p.out, row), RowOf(p.in, p.index[row]),
              static_cast<size_t>(p.out.width) * sizeof(float));
}

}  // namespace

absl::Status CpuOps::Run(const BeginStepParams& p) {
  Checks checks("begin_step", kTypes);
  checks.RowCount(p.rows).NotNull("map.lane", p.map.lane);
  if (p.derive_positions) {
    checks.NotNull("map.position", p.map.position).NotNull("lanes.lane", p.lanes.lane);
  }
  if (p.update_count != nullptr) {
    checks.NotNull("updates", p.updates).NotNull("lanes.block_table", p.lanes.block_table);
  }
  if (!checks.ok()) return checks.status();
  Call call = Call::Of<BeginStep>(p, {1});
  call.AddCheck<CheckUpdates, BeginStepParams>();
  return sink_.Take(call);
}

absl::Status CpuOps::Run(const EmbedParams& p) {
  Checks checks("embed", kTypes);
  checks.RowCount(p.rows).Map(p.map).NotNull("lanes.history", p.lanes.history);
  checks.Weights("table", p.table, p.table.rows, p.table.cols);
  checks.Activations("out", p.out, p.table.cols);
  if (!checks.ok()) return checks.status();
  return sink_.Take(RowCall<EmbedParams, EmbedOne>(p, p.out.width));
}

absl::Status CpuOps::Run(const RmsNormParams& p) {
  Checks checks("rms_norm", kTypes);
  checks.RowCount(p.rows).Activations("in", p.in, p.in.width).NotNull("weight", p.weight);
  checks.Activations("out", p.out, p.in.width);
  if (!checks.ok()) return checks.status();
  return sink_.Take(RowCall<RmsNormParams, NormOne>(p, p.in.width));
}

absl::Status CpuOps::Run(const HeadNormParams& p) {
  Checks checks("head_norm", kTypes);
  checks.RowCount(p.rows).Activations("heads", p.heads, p.heads.width);
  checks.Positive("head_dim", p.head_dim).NotNull("weight", p.weight);
  if (checks.ok()) {
    checks.That(p.heads.width % p.head_dim == 0, "heads is no multiple of head_dim wide");
  }
  if (!checks.ok()) return checks.status();
  return sink_.Take(RowCall<HeadNormParams, NormHeads>(p, p.heads.width));
}

absl::Status CpuOps::Run(const AddNormParams& p) {
  Checks checks("add_norm", kTypes);
  checks.RowCount(p.rows).Activations("sum", p.sum, p.sum.width);
  checks.Activations("delta", p.delta, p.sum.width);
  if (p.weight != nullptr) checks.Activations("normed", p.normed, p.sum.width);
  if (!checks.ok()) return checks.status();
  return sink_.Take(RowCall<AddNormParams, AddNormOne>(p, p.sum.width));
}

absl::Status CpuOps::Run(const RotaryParams& p) {
  Checks checks("rotary", kTypes);
  checks.RowCount(p.rows).Map(p.map).Activations("heads", p.heads, p.heads.width);
  checks.Positive("head_dim", p.head_dim).Rotary(p.table, p.head_dim);
  if (checks.ok()) {
    checks.That(p.heads.width % p.head_dim == 0, "heads is no multiple of head_dim wide");
  }
  if (!checks.ok()) return checks.status();
  return sink_.Take(RowCall<RotaryParams, TurnOne>(p, p.heads.width));
}

absl::Status CpuOps::Run(const WriteKvParams& p) {
  Checks checks("write_kv", kTypes);
  checks.RowCount(p.rows).Map(p.map).Kv(p.kv, p.lanes);
  const int64_t width = int64_t{p.kv.kv_heads} * p.kv.head_dim;
  checks.Activations("k", p.k, width).Activations("v", p.v, width);
  if (!checks.ok()) return checks.status();
  return sink_.Take(RowCall<WriteKvParams, WriteKvOne>(p, p.k.width));
}

absl::Status CpuOps::Run(const AddParams& p) {
  Checks checks("add", kTypes);
  checks.RowCount(p.rows).Activations("sum", p.sum, p.sum.width);
  checks.Activations("delta", p.delta, p.sum.width);
  if (!checks.ok()) return checks.status();
  return sink_.Take(RowCall<AddParams, AddOne>(p, p.sum.width));
}

absl::Status CpuOps::Run(const GatedActivationParams& p) {
  Checks checks("gated_activation", kTypes);
  checks.RowCount(p.rows).Activations("gate", p.gate, p.gate.width);
  checks.Activations("up", p.up, p.gate.width).Activations("out", p.out, p.gate.width);
  if (!checks.ok()) return checks.status();
  return sink_.Take(RowCall<GatedActivationParams, ActivateOne>(p, p.out.width));
}

absl::Status CpuOps::Run(const GatherRowsParams& p) {
  Checks checks("gather_rows", kTypes);
  checks.RowCount(p.rows).Activations("in", p.in, p.in.width).NotNull("index", p.index);
  checks.Activations("out", p.out, p.in.width);
  if (!checks.ok()) return checks.status();
  return sink_.Take(RowCall<GatherRowsParams, GatherOne>(p, p.out.width));
}

}  // namespace sirocco::cpu
