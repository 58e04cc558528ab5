// Operations row by row: a step's begin, embedding, norm, rotary, KV write, activation, addition.

#include <cstring>

#include "absl/status/status.h"
#include "kernels/check_params.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/pack.h"
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
      return OutsideBlockTables(i, u);
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
  UnpackRow(p.table, id, p.scale, RowOf(p.out, row));
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

// Few rows, each a vocabulary wide: tasks are parts of a row.
constexpr int32_t kLogitsTile = 8192;

void AdjustLogits(const ByRows<AdjustLogitsParams>& work, int /*phase*/, int32_t task,
                  const Scratch&) {
  const Grid::Tile tile = work.grid.At(task);
  AdjustLogitsRow(work.p.scale, work.p.soft_cap, tile.columns,
                  RowOf(work.p.logits, tile.first_row) + tile.first_column);
}

// Checks, and the call of kRow for every row; `width` is the widest of what a row touches.
template <auto kRow, typename Params>
absl::Status EachRow(CallSink& sink, const Params& p, int32_t width) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  return sink.Take(RowCall<Params, kRow>(p, width));
}

}  // namespace

absl::Status CpuOps::Run(const BeginStepParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  Call call = Call::Of<BeginStep>(p, {1});
  call.AddCheck<CheckUpdates, BeginStepParams>();
  return sink_.Take(call);
}

absl::Status CpuOps::Run(const EmbedParams& p) { return EachRow<EmbedOne>(sink_, p, p.out.width); }

absl::Status CpuOps::Run(const RmsNormParams& p) { return EachRow<NormOne>(sink_, p, p.in.width); }

absl::Status CpuOps::Run(const HeadNormParams& p) {
  return EachRow<NormHeads>(sink_, p, p.heads.width);
}

absl::Status CpuOps::Run(const AddNormParams& p) {
  return EachRow<AddNormOne>(sink_, p, p.sum.width);
}

absl::Status CpuOps::Run(const RotaryParams& p) {
  return EachRow<TurnOne>(sink_, p, p.heads.width);
}

absl::Status CpuOps::Run(const WriteKvParams& p) {
  return EachRow<WriteKvOne>(sink_, p, p.k.width);
}

absl::Status CpuOps::Run(const AddParams& p) { return EachRow<AddOne>(sink_, p, p.sum.width); }

absl::Status CpuOps::Run(const GatedActivationParams& p) {
  return EachRow<ActivateOne>(sink_, p, p.out.width);
}

absl::Status CpuOps::Run(const GatherRowsParams& p) {
  return EachRow<GatherOne>(sink_, p, p.out.width);
}

absl::Status CpuOps::Run(const AdjustLogitsParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  const ByRows<AdjustLogitsParams> work{p, {p.rows, p.logits.width, 1, kLogitsTile}};
  return sink_.Take(Call::Of<AdjustLogits>(work, {work.grid.tasks()}));
}

}  // namespace sirocco::cpu
