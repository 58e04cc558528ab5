// A layer's experts. Each output is accumulated in one order, whatever the rows: a product in that
// of every product, a row's experts by their ids.

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "kernels/check_params.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/layer.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/split.h"
#include "kernels/cpu/types.h"

namespace sirocco::cpu {
namespace {

// Phases: norm and choice, by rows; gate and up, by experts and columns, so that a tile of weights
// is read once for all of its rows; down and residual, by columns and rows; the counter.
struct ExpertsWork {
  ExpertsParams p;
  Grid row_grid;
  Grid up_grid;  // rows: experts
  Grid down_grid;
};

float* RowOf(const Rows& rows, int32_t row) {
  return static_cast<float*>(rows.data) + int64_t{row} * rows.width;
}

absl::Status CheckExpertsLayer(const ExpertsWork& work) {
  const LayerParams& layer = LayerOf(work.p.layer);
  const LayerRef& ref = work.p.layer;
  const int32_t hidden = work.p.hidden.width;
  Checks checks("experts", kTypes);
  checks.Weights("router", layer.router, ref.experts, hidden)
      .Weights("gate", layer.gate, ref.experts * ref.intermediate, hidden)
      .Weights("up", layer.up, ref.experts * ref.intermediate, hidden)
      .Weights("down", layer.down, ref.experts * hidden, ref.intermediate)
      .That(!InBlocks(layer.router.dtype) && !InBlocks(layer.gate.dtype) &&
                !InBlocks(layer.up.dtype) && !InBlocks(layer.down.dtype),
            "weights of experts are in blocks");
  return checks.status();
}

// The ids of the largest of `logits`, from the lowest on; of equal ones those with the lower ids.
void Choose(const float* logits, int32_t experts, int32_t count, int32_t* chosen) {
  for (int32_t i = 0; i < count; ++i) {
    int32_t best = -1;
    for (int32_t e = 0; e < experts; ++e) {
      if (std::find(chosen, chosen + i, e) != chosen + i) continue;
      if (best < 0 || logits[e] > logits[best]) best = e;
    }
    chosen[i] = best;
  }
  std::sort(chosen, chosen + count);
}

// The chosen experts' softmax among all, or among themselves.
void Share(const float* logits, int32_t experts, const int32_t* chosen, int32_t count,
           bool renormalise, float* shares) {
  float most = logits[0];
  for (int32_t e = 1; e < experts; ++e) most = std::max(most, logits[e]);
  float sum = 0;
  if (renormalise) {
    for (int32_t i = 0; i < count; ++i) sum += std::exp(logits[chosen[i]] - most);
  } else {
    for (int32_t e = 0; e < experts; ++e) sum += std::exp(logits[e] - most);
  }
  for (int32_t i = 0; i < count; ++i) shares[i] = std::exp(logits[chosen[i]] - most) / sum;
}

void NormAndChoose(const ExpertsWork& work, int32_t row, float* logits) {
  const ExpertsParams& p = work.p;
  const LayerParams& layer = LayerOf(p.layer);
  const int32_t experts = p.layer.experts;
  const int32_t count = p.layer.experts_a_row;
  int32_t* const chosen = p.chosen + int64_t{row} * count;
  NormRow(RowOf(p.hidden, row), layer.mlp_norm, layer.norm_epsilon, p.hidden.width,
          RowOf(p.normed, row));
  DotColumnsOf(layer.router, 0, experts, {p.normed, {}}, row, 1, logits, experts);
  int32_t* trace = layer.expert_trace;
  if (trace != nullptr) {
    trace += (int64_t{p.map.lane[row]} * p.lanes.max_length + p.map.position[row]) * count;
  }
  if (trace != nullptr && layer.impose_experts) {
    std::copy_n(trace, count, chosen);
  } else {
    Choose(logits, experts, count, chosen);
    if (trace != nullptr) std::copy_n(chosen, count, trace);
  }
  Share(logits, experts, chosen, count, layer.renormalise, p.shares + int64_t{row} * count);
}

// activated = activation(n * gate^T) * (n * up^T), of all rows that have the expert.
void GateUp(const ExpertsWork& work, const Grid::Tile& tile, float* scratch) {
  const ExpertsParams& p = work.p;
  const LayerParams& layer = LayerOf(p.layer);
  const int32_t count = p.layer.experts_a_row;
  const int32_t intermediate = p.layer.intermediate;
  const int32_t expert = tile.first_row;
  float* const gate = scratch;
  float* const up = scratch + tile.columns;
  for (int32_t i = 0; i < p.rows * count; ++i) {
    if (p.chosen[i] != expert) continue;
    const int32_t row = i / count;
    const int32_t first = expert * intermediate + tile.first_column;
    DotColumnsOf(layer.gate, first, tile.columns, {p.normed, {}}, row, 1, gate, tile.columns);
    DotColumnsOf(layer.up, first, tile.columns, {p.normed, {}}, row, 1, up, tile.columns);
    GatedActivationRow(
        layer.activation, gate, up, tile.columns,
        RowOf(p.activated, row) + int64_t{i % count} * intermediate + tile.first_column);
  }
}

// hidden += the sum over the row's experts of share * activated * down^T.
void Down(const ExpertsWork& work, const Grid::Tile& tile, float* scratch) {
  const ExpertsParams& p = work.p;
  const LayerParams& layer = LayerOf(p.layer);
  const int32_t count = p.layer.experts_a_row;
  float* const sum = scratch;
  float* const product = scratch + tile.columns;
  for (int32_t row = tile.first_row; row < tile.first_row + tile.rows; ++row) {
    std::fill_n(sum, tile.columns, 0.0f);
    for (int32_t i = 0; i < count; ++i) {
      const int32_t expert = p.chosen[int64_t{row} * count + i];
      const float share = p.shares[int64_t{row} * count + i];
      Rows in = p.activated;  // the same rows, from this expert's part on
      in.data = static_cast<float*>(in.data) + int64_t{i} * p.layer.intermediate;
      DotColumnsOf(layer.down, expert * p.hidden.width + tile.first_column, tile.columns, {in, {}},
                   row, 1, product, tile.columns);
      for (int32_t c = 0; c < tile.columns; ++c) sum[c] += share * product[c];
    }
    AddTo(RowOf(p.hidden, row) + tile.first_column, sum, tile.columns);
  }
}

void RunExperts(const ExpertsWork& work, int phase, int32_t task, const Scratch& scratch) {
  float* const own = reinterpret_cast<float*>(scratch.own);
  if (phase == 0) {
    const Grid::Tile tile = work.row_grid.At(task);
    for (int32_t i = 0; i < tile.rows; ++i) NormAndChoose(work, tile.first_row + i, own);
  } else if (phase == 1) {
    GateUp(work, work.up_grid.At(task), own);
  } else if (phase == 2) {
    Down(work, work.down_grid.At(task), own);
  } else {
    *work.p.advance += 1;
  }
}

}  // namespace

absl::Status CpuOps::Run(const ExpertsParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  ExpertsWork work{p, RowGrid(p.rows, p.hidden.width), Grid(),
                   ColumnGrid(p.rows, p.hidden.width, sink_.threads())};
  work.up_grid = ColumnGrid(p.layer.experts, p.layer.intermediate, sink_.threads());
  work.up_grid.row_chunk = 1;
  const int64_t rows = work.row_grid.tasks(), up = work.up_grid.tasks();
  const int64_t down = work.down_grid.tasks();
  Call call = p.advance != nullptr ? Call::Of<RunExperts>(work, {rows, up, down, 1})
                                   : Call::Of<RunExperts>(work, {rows, up, down});
  call.AddCheck<CheckExpertsLayer, ExpertsWork>();
  const int32_t tile = std::max(work.up_grid.column_tile, work.down_grid.column_tile);
  const int64_t floats = std::max(2 * tile, p.layer.experts);
  return TakeWith(floats * static_cast<int64_t>(sizeof(float)), call);
}

}  // namespace sirocco::cpu
