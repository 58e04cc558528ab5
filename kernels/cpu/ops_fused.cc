// The fused operations. Each has its own split and epilogue; the arithmetic of an element is that
// of the operations one by one (rows.h), so the bits are the same.

#include <algorithm>

#include "absl/status/status.h"
#include "kernels/cpu/checks.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/layer.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/split.h"

namespace sirocco::cpu {
namespace {

// Rows whose outputs wait in scratch for their epilogue.
constexpr int32_t kTileRows = 32;

float* RowOf(const Rows& rows, int32_t row) {
  return static_cast<float*>(rows.data) + int64_t{row} * rows.width;
}

int64_t TileBytes(int32_t rows, int32_t columns) {
  return int64_t{std::min(rows, kTileRows)} * columns * static_cast<int64_t>(sizeof(float));
}

void NormRows(const Rows& in, const float* weight, float epsilon, const Grid& grid, int32_t task,
              const Rows& out) {
  const Grid::Tile tile = grid.At(task);
  for (int32_t r = tile.first_row; r < tile.first_row + tile.rows; ++r) {
    NormRow(RowOf(in, r), weight, epsilon, in.width, RowOf(out, r));
  }
}

// ---- q, k, v ------------------------------------------------------------------------------

// Columns are the heads of q, then of k, then of v; a tile is one head.
struct QkvWork {
  RowMap map;
  Lanes lanes;
  LayerRef layer;
  Rows hidden;  // normed in phase 0; null: `normed` comes ready
  Rows normed;
  Rows q_out;
  Grid norm_grid;
  Grid head_grid;
};

absl::Status CheckQkvLayer(const QkvWork& work) {
  const LayerParams& layer = LayerOf(work.layer);
  const int32_t hidden = work.normed.width;
  Checks checks("qkv");
  checks.Weights("q", layer.q, work.layer.q_rows, hidden)
      .Weights("k", layer.k, work.layer.kv_rows, hidden)
      .Weights("v", layer.v, work.layer.kv_rows, hidden)
      .Kv(layer.kv, work.lanes)
      .Rotary(layer.rotary, work.layer.head_dim)
      .That(layer.kv.head_dim == work.layer.head_dim &&
                int64_t{layer.kv.kv_heads} * layer.kv.head_dim == work.layer.kv_rows,
            "the layer's KV heads are not those that were planned");
  if (work.hidden.data != nullptr) checks.NotNull("attention_norm", layer.attention_norm);
  return checks.status();
}

// One head of q, k or v for a tile of rows: product, bias, turn, and where it belongs.
void QkvHead(const QkvWork& work, const Grid::Tile& tile, const Scratch& scratch) {
  const LayerParams& layer = LayerOf(work.layer);
  const int32_t dim = work.layer.head_dim;
  const int32_t q_heads = work.layer.q_rows / dim;
  const int32_t kv_heads = work.layer.kv_rows / dim;
  const int32_t head = tile.first_column;
  const bool is_q = head < q_heads;
  const bool is_v = head >= q_heads + kv_heads;
  const int32_t own = is_q ? head : is_v ? head - q_heads - kv_heads : head - q_heads;
  const Matrix& weight = is_q ? layer.q : is_v ? layer.v : layer.k;
  const float* bias = is_q ? layer.q_bias : is_v ? layer.v_bias : layer.k_bias;
  float* out = is_q ? RowOf(work.q_out, tile.first_row) + int64_t{own} * dim
                    : reinterpret_cast<float*>(scratch.own);
  const int64_t stride = is_q ? work.q_out.width : dim;

  DotColumnsOf(weight, own * dim, dim, RowOf(work.normed, tile.first_row), work.normed.width,
               tile.rows, out, stride);
  if (bias != nullptr) AddBias(out, stride, tile.rows, bias + own * dim, dim);
  for (int32_t r = 0; r < tile.rows; ++r) {
    const int32_t row = tile.first_row + r;
    const int32_t position = work.map.position[row];
    if (!is_v) TurnHead(layer.rotary, position, out + r * stride);
    if (is_q) continue;
    StoreKv(layer.kv, work.lanes.BlockTable(work.map.lane[row], layer.kv.group), position, own,
            is_v, out + r * stride);
  }
}

void NormThenQkv(const QkvWork& work, int phase, int32_t task, const Scratch& scratch) {
  if (phase == 0) {
    const LayerParams& layer = LayerOf(work.layer);
    NormRows(work.hidden, layer.attention_norm, layer.norm_epsilon, work.norm_grid, task,
             work.normed);
  } else {
    QkvHead(work, work.head_grid.At(task), scratch);
  }
}

void QkvOnly(const QkvWork& work, int /*phase*/, int32_t task, const Scratch& scratch) {
  QkvHead(work, work.head_grid.At(task), scratch);
}

Checks& CheckQkv(Checks& checks, int32_t rows, const QkvWork& work) {
  const LayerRef& layer = work.layer;
  checks.RowCount(rows).Map(work.map).Layer(layer).Positive("layer.head_dim", layer.head_dim);
  checks.Positive("layer.q_rows", layer.q_rows).Positive("layer.kv_rows", layer.kv_rows);
  if (checks.ok()) {
    checks.That(layer.q_rows % layer.head_dim == 0 && layer.kv_rows % layer.head_dim == 0,
                "q_rows or kv_rows is no multiple of head_dim");
  }
  checks.Activations("normed", work.normed, work.normed.width);
  return checks.Activations("q_out", work.q_out, layer.q_rows);
}

Grid HeadGrid(int32_t rows, const LayerRef& layer) {
  return {rows, (layer.q_rows + 2 * layer.kv_rows) / layer.head_dim, std::min(rows, kTileRows), 1};
}

// ---- Products that add to the residual ----------------------------------------------------

enum class ResidualKind { kOutput, kDown };

struct ResidualWork {
  LayerRef layer;
  Rows in;
  Rows hidden;
  Grid grid = {};
  // Phase 1, as the operation has it:
  int32_t* advance = nullptr;
  const float* next_norm = nullptr;
  Rows normed = {};
  Grid norm_grid = {};
};

template <ResidualKind kKind>
const Matrix& ResidualWeight(const LayerParams& layer) {
  return kKind == ResidualKind::kOutput ? layer.o : layer.down;
}

template <ResidualKind kKind>
absl::Status CheckResidualLayer(const ResidualWork& work) {
  Checks checks(kKind == ResidualKind::kOutput ? "output_residual" : "down");
  checks.Weights("weight", ResidualWeight<kKind>(LayerOf(work.layer)), work.hidden.width,
                 work.in.width);
  return checks.status();
}

// hidden[tile] += in * weight^T + bias, in pieces that fit the scratch.
template <ResidualKind kKind>
void AddProduct(const ResidualWork& work, const Grid::Tile& tile, const Scratch& scratch) {
  const LayerParams& layer = LayerOf(work.layer);
  const float* bias = kKind == ResidualKind::kOutput ? layer.o_bias : layer.down_bias;
  float* delta = reinterpret_cast<float*>(scratch.own);
  DotColumnsOf(ResidualWeight<kKind>(layer), tile.first_column, tile.columns,
               RowOf(work.in, tile.first_row), work.in.width, tile.rows, delta, tile.columns);
  if (bias != nullptr) {
    AddBias(delta, tile.columns, tile.rows, bias + tile.first_column, tile.columns);
  }
  for (int32_t r = 0; r < tile.rows; ++r) {
    AddTo(RowOf(work.hidden, tile.first_row + r) + tile.first_column,
          delta + int64_t{r} * tile.columns, tile.columns);
  }
}

void OutputResidual(const ResidualWork& work, int /*phase*/, int32_t task, const Scratch& scratch) {
  AddProduct<ResidualKind::kOutput>(work, work.grid.At(task), scratch);
}

void DownResidual(const ResidualWork& work, int phase, int32_t task, const Scratch& scratch) {
  if (phase == 0) {
    AddProduct<ResidualKind::kDown>(work, work.grid.At(task), scratch);
  } else {
    *work.advance += 1;
  }
}

void DownNorm(const ResidualWork& work, int phase, int32_t task, const Scratch& scratch) {
  if (phase == 0) {
    AddProduct<ResidualKind::kDown>(work, work.grid.At(task), scratch);
  } else {
    NormRows(work.hidden, work.next_norm, LayerOf(work.layer).norm_epsilon, work.norm_grid, task,
             work.normed);
  }
}

// Like ColumnGrid, with as many rows a tile as wait in scratch.
Grid TileGrid(int32_t rows, int32_t columns, int threads) {
  Grid grid = ColumnGrid(rows, columns, threads);
  grid.row_chunk = std::min(rows, kTileRows);
  return grid;
}

Checks& CheckResidual(Checks& checks, int32_t rows, const ResidualWork& work) {
  checks.RowCount(rows).Layer(work.layer).Activations("in", work.in, work.in.width);
  return checks.Activations("hidden", work.hidden, work.hidden.width);
}

// ---- norm + gate and up + activation ------------------------------------------------------

struct GateUpWork {
  NormGateUpParams p;
  Grid norm_grid;
  Grid grid;
};

absl::Status CheckGateUpLayer(const GateUpWork& work) {
  const LayerParams& layer = LayerOf(work.p.layer);
  Checks checks("norm_gate_up");
  checks.Weights("gate", layer.gate, work.p.out.width, work.p.hidden.width)
      .Weights("up", layer.up, work.p.out.width, work.p.hidden.width)
      .NotNull("mlp_norm", layer.mlp_norm);
  return checks.status();
}

void NormGateUp(const GateUpWork& work, int phase, int32_t task, const Scratch& scratch) {
  const NormGateUpParams& p = work.p;
  const LayerParams& layer = LayerOf(p.layer);
  if (phase == 0) {
    NormRows(p.hidden, layer.mlp_norm, layer.norm_epsilon, work.norm_grid, task, p.normed);
    return;
  }
  const Grid::Tile tile = work.grid.At(task);
  float* gate = reinterpret_cast<float*>(scratch.own);
  float* up = gate + int64_t{tile.rows} * tile.columns;
  const auto product = [&](const Matrix& weight, const float* bias, float* out) {
    DotColumnsOf(weight, tile.first_column, tile.columns, RowOf(p.normed, tile.first_row),
                 p.normed.width, tile.rows, out, tile.columns);
    if (bias != nullptr) {
      AddBias(out, tile.columns, tile.rows, bias + tile.first_column, tile.columns);
    }
  };
  product(layer.gate, layer.gate_bias, gate);
  product(layer.up, layer.up_bias, up);
  for (int32_t r = 0; r < tile.rows; ++r) {
    const int64_t at = int64_t{r} * tile.columns;
    GatedActivationRow(layer.activation, gate + at, up + at, tile.columns,
                       RowOf(p.out, tile.first_row + r) + tile.first_column);
  }
}

}  // namespace

absl::Status CpuOps::Run(const NormQkvParams& p) {
  Checks checks("norm_qkv");
  QkvWork work{p.map, p.lanes, p.layer, p.hidden, p.normed, p.q_out, Grid(), Grid()};
  CheckQkv(checks, p.rows, work).Activations("hidden", p.hidden, p.normed.width);
  if (!checks.ok()) return checks.status();
  work.norm_grid = RowGrid(p.rows, p.hidden.width);
  work.head_grid = HeadGrid(p.rows, p.layer);
  if (absl::Status status = sink_.NeedScratch(TileBytes(p.rows, p.layer.head_dim), 0);
      !status.ok()) {
    return status;
  }
  Call call = Call::Of<NormThenQkv>(work, {work.norm_grid.tasks(), work.head_grid.tasks()});
  call.AddCheck<CheckQkvLayer, QkvWork>();
  return sink_.Take(call);
}

absl::Status CpuOps::Run(const QkvParams& p) {
  Checks checks("qkv");
  QkvWork work{p.map, p.lanes, p.layer, Rows(), p.normed, p.q_out, Grid(), Grid()};
  if (!CheckQkv(checks, p.rows, work).ok()) return checks.status();
  work.head_grid = HeadGrid(p.rows, p.layer);
  if (absl::Status status = sink_.NeedScratch(TileBytes(p.rows, p.layer.head_dim), 0);
      !status.ok()) {
    return status;
  }
  Call call = Call::Of<QkvOnly>(work, {work.head_grid.tasks()});
  call.AddCheck<CheckQkvLayer, QkvWork>();
  return sink_.Take(call);
}

absl::Status CpuOps::Run(const OutputResidualParams& p) {
  Checks checks("output_residual");
  ResidualWork work{p.layer, p.attention, p.hidden};
  if (!CheckResidual(checks, p.rows, work).ok()) return checks.status();
  work.grid = TileGrid(p.rows, p.hidden.width, sink_.threads());
  if (absl::Status status = sink_.NeedScratch(TileBytes(p.rows, work.grid.column_tile), 0);
      !status.ok()) {
    return status;
  }
  Call call = Call::Of<OutputResidual>(work, {work.grid.tasks()});
  call.AddCheck<CheckResidualLayer<ResidualKind::kOutput>, ResidualWork>();
  return sink_.Take(call);
}

absl::Status CpuOps::Run(const DownResidualParams& p) {
  Checks checks("down_residual");
  ResidualWork work{p.layer, p.in, p.hidden};
  if (!CheckResidual(checks, p.rows, work).ok()) return checks.status();
  work.grid = TileGrid(p.rows, p.hidden.width, sink_.threads());
  work.advance = p.advance;
  if (absl::Status status = sink_.NeedScratch(TileBytes(p.rows, work.grid.column_tile), 0);
      !status.ok()) {
    return status;
  }
  Call call = p.advance != nullptr ? Call::Of<DownResidual>(work, {work.grid.tasks(), 1})
                                   : Call::Of<DownResidual>(work, {work.grid.tasks()});
  call.AddCheck<CheckResidualLayer<ResidualKind::kDown>, ResidualWork>();
  return sink_.Take(call);
}

absl::Status CpuOps::Run(const DownNormParams& p) {
  Checks checks("down_norm");
  ResidualWork work{p.layer, p.in, p.hidden};
  CheckResidual(checks, p.rows, work).Activations("normed", p.normed, p.hidden.width);
  checks.NotNull("next_norm", p.next_norm);
  if (!checks.ok()) return checks.status();
  work.grid = TileGrid(p.rows, p.hidden.width, sink_.threads());
  work.next_norm = p.next_norm;
  work.normed = p.normed;
  work.norm_grid = RowGrid(p.rows, p.hidden.width);
  if (absl::Status status = sink_.NeedScratch(TileBytes(p.rows, work.grid.column_tile), 0);
      !status.ok()) {
    return status;
  }
  Call call = Call::Of<DownNorm>(work, {work.grid.tasks(), work.norm_grid.tasks()});
  call.AddCheck<CheckResidualLayer<ResidualKind::kDown>, ResidualWork>();
  return sink_.Take(call);
}

absl::Status CpuOps::Run(const NormGateUpParams& p) {
  Checks checks("norm_gate_up");
  checks.RowCount(p.rows).Layer(p.layer).Activations("hidden", p.hidden, p.hidden.width);
  checks.Activations("normed", p.normed, p.hidden.width);
  checks.Activations("out", p.out, p.layer.intermediate);
  if (!checks.ok()) return checks.status();
  const GateUpWork work{p, RowGrid(p.rows, p.hidden.width),
                        TileGrid(p.rows, p.out.width, sink_.threads())};
  if (absl::Status status = sink_.NeedScratch(2 * TileBytes(p.rows, work.grid.column_tile), 0);
      !status.ok()) {
    return status;
  }
  Call call = Call::Of<NormGateUp>(work, {work.norm_grid.tasks(), work.grid.tasks()});
  call.AddCheck<CheckGateUpLayer, GateUpWork>();
  return sink_.Take(call);
}

}  // namespace sirocco::cpu
