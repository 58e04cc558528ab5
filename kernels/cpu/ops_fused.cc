// The fused operations. Each has its own split and epilogue; the arithmetic of an element is that
// of the operations one by one (rows.h), so the bits are the same.

#include <algorithm>

#include "absl/status/status.h"
#include "kernels/check_params.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/layer.h"
#include "kernels/cpu/product_rows.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/split.h"
#include "kernels/cpu/types.h"

namespace sirocco::cpu {
namespace {

float* RowOf(const Rows& rows, int32_t row) {
  return static_cast<float*>(rows.data) + int64_t{row} * rows.width;
}

// What the outputs of a tile take at most, which wait in scratch for their epilogue.
int64_t TileBytes(int32_t rows) {
  return int64_t{std::min(rows, kMostChunk)} * kMostTile * static_cast<int64_t>(sizeof(float));
}

// The residual stream as an operation finds it (params.h, above NormQkvParams): `hidden`, or with
// a block's `delta` that `sum` still has to take in.
struct Stream {
  Rows hidden, delta, sum;
};

// normed = norm(stream) * weight; the stream's `sum` is made first, where there is one.
// `quantise`: products with blocks take them.
void NormStream(const Stream& stream, const float* post_norm, const float* weight, float epsilon,
                const Grid::Tile& tile, const ProductRows& normed, bool quantise) {
  const int32_t width = stream.hidden.width;
  for (int32_t r = tile.first_row; r < tile.first_row + tile.rows; ++r) {
    const float* in = RowOf(stream.hidden, r);
    if (stream.sum.data != nullptr) {
      float* sum = RowOf(stream.sum, r);
      JoinRow(in, RowOf(stream.delta, r), post_norm, epsilon, width, sum);
      in = sum;
    }
    NormRow(in, weight, epsilon, width, RowOf(normed.rows, r));
  }
  if (quantise) QuantiseTile(normed, tile);
}

// ---- q, k, v ------------------------------------------------------------------------------

// Columns are the heads of q, then of k, then of v; a tile is one head.
struct QkvWork {
  int32_t rows;
  LayerRef layer;
  Stream stream;  // normed in phase 0; null: `normed` comes ready
  Rows normed;
  Rows qkv;
  Grid norm_grid;  // of phase 0
  Grid head_grid;
};

bool TakesBlocks(const LayerParams& layer) {
  return InBlocks(layer.q.dtype) || InBlocks(layer.k.dtype) || InBlocks(layer.v.dtype);
}

absl::Status CheckQkvLayer(const QkvWork& work) {
  const LayerParams& layer = LayerOf(work.layer);
  const int32_t hidden = work.normed.width;
  Checks checks("qkv", kTypes);
  checks.Weights("q", layer.q, work.layer.q_rows, hidden)
      .Weights("k", layer.k, work.layer.kv_rows, hidden)
      .Weights("v", layer.v, work.layer.kv_rows, hidden);
  if (work.stream.hidden.data != nullptr) {
    checks.That(layer.input_post_norm == nullptr || work.stream.sum.data != nullptr,
                "the layer has an input_post_norm, but delta and sum are null");
  }
  return checks.status();
}

// The products of one head of q, k or v with a tile of rows.
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
  DotColumnsOf(weight, own * dim, dim, RowsFor(work.normed, work.rows, scratch), tile.first_row,
               tile.rows, RowOf(work.qkv, tile.first_row) + int64_t{head} * dim, work.qkv.width);
}

void NormThenQkv(const QkvWork& work, int phase, int32_t task, const Scratch& scratch) {
  if (phase == 0) {
    const LayerParams& layer = LayerOf(work.layer);
    NormStream(work.stream, layer.input_post_norm, layer.attention_norm, layer.norm_epsilon,
               work.norm_grid.At(task), RowsFor(work.normed, work.rows, scratch),
               TakesBlocks(layer));
  } else {
    QkvHead(work, work.head_grid.At(task), scratch);
  }
}

void QkvOnly(const QkvWork& work, int phase, int32_t task, const Scratch& scratch) {
  if (phase == 1) {
    QkvHead(work, work.head_grid.At(task), scratch);
  } else if (TakesBlocks(LayerOf(work.layer))) {
    QuantiseTile(RowsFor(work.normed, work.rows, scratch), work.norm_grid.At(task));
  }
}

Grid HeadGrid(int32_t rows, const LayerRef& layer, int threads) {
  const int32_t heads = (layer.q_rows + 2 * layer.kv_rows) / layer.head_dim;
  return {rows, heads, RowChunk(rows, heads, threads), 1};
}

struct NormQkWork {
  NormQkParams p;
  Grid grid;
};

absl::Status CheckNormQkLayer(const NormQkWork& work) {
  const LayerParams& layer = LayerOf(work.p.layer);
  Checks checks("norm_qk", kTypes);
  checks.NotNull("q_whole_norm", layer.q_whole_norm).NotNull("k_whole_norm", layer.k_whole_norm);
  return checks.status();
}

void NormQk(const NormQkWork& work, int /*phase*/, int32_t task, const Scratch&) {
  const LayerParams& layer = LayerOf(work.p.layer);
  const LayerRef& ref = work.p.layer;
  const Grid::Tile tile = work.grid.At(task);
  for (int32_t r = tile.first_row; r < tile.first_row + tile.rows; ++r) {
    float* const q = RowOf(work.p.qkv, r);
    float* const k = q + ref.q_rows;
    NormRow(q, layer.q_whole_norm, layer.norm_epsilon, ref.q_rows, q);
    NormRow(k, layer.k_whole_norm, layer.norm_epsilon, ref.kv_rows, k);
  }
}

// ---- Products that add to the residual, or go to `delta` to be normed first ------------------

enum class ResidualKind { kOutput, kDown };

struct ResidualWork {
  int32_t rows;
  LayerRef layer;
  Rows in;
  Rows hidden;
  Rows delta;         // or null
  Grid in_grid = {};  // of phase 0, which quantises `in` where the weight is in blocks
  Grid grid = {};     // of phase 1
  // Phase 2, as the operation has it:
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
  const LayerParams& layer = LayerOf(work.layer);
  Checks checks(kKind == ResidualKind::kOutput ? "output_residual" : "down", kTypes);
  checks.Weights("weight", ResidualWeight<kKind>(layer), work.hidden.width, work.in.width);
  const bool post_norm =
      (kKind == ResidualKind::kOutput ? layer.attention_post_norm : layer.mlp_post_norm) != nullptr;
  checks.That(post_norm == (work.delta.data != nullptr),
              post_norm ? "the layer has a post-norm, but delta is null"
                        : "delta is set, but the layer has no post-norm");
  return checks.status();
}

// hidden[tile] += in * weight^T + bias, in pieces that fit the scratch; with a `delta`,
// delta[tile] = that.
template <ResidualKind kKind>
void AddProduct(const ResidualWork& work, const Grid::Tile& tile, const Scratch& scratch) {
  const LayerParams& layer = LayerOf(work.layer);
  const float* bias = kKind == ResidualKind::kOutput ? layer.o_bias : layer.down_bias;
  const bool apart = work.delta.data != nullptr;
  float* delta = apart ? RowOf(work.delta, tile.first_row) + tile.first_column
                       : reinterpret_cast<float*>(scratch.own);
  const int64_t stride = apart ? work.delta.width : tile.columns;
  DotColumnsOf(ResidualWeight<kKind>(layer), tile.first_column, tile.columns,
               RowsFor(work.in, work.rows, scratch), tile.first_row, tile.rows, delta, stride);
  if (bias != nullptr) AddBias(delta, stride, tile.rows, bias + tile.first_column, tile.columns);
  if (apart) return;
  for (int32_t r = 0; r < tile.rows; ++r) {
    AddTo(RowOf(work.hidden, tile.first_row + r) + tile.first_column,
          delta + int64_t{r} * tile.columns, tile.columns);
  }
}

// Phases 0 and 1 of them all.
template <ResidualKind kKind>
void QuantiseThenAdd(const ResidualWork& work, int phase, int32_t task, const Scratch& scratch) {
  if (phase == 1) {
    AddProduct<kKind>(work, work.grid.At(task), scratch);
  } else if (InBlocks(ResidualWeight<kKind>(LayerOf(work.layer)).dtype)) {
    QuantiseTile(RowsFor(work.in, work.rows, scratch), work.in_grid.At(task));
  }
}

void DownResidual(const ResidualWork& work, int phase, int32_t task, const Scratch& scratch) {
  if (phase < 2) {
    QuantiseThenAdd<ResidualKind::kDown>(work, phase, task, scratch);
  } else {
    *work.advance += 1;
  }
}

void DownNorm(const ResidualWork& work, int phase, int32_t task, const Scratch& scratch) {
  if (phase < 2) {
    QuantiseThenAdd<ResidualKind::kDown>(work, phase, task, scratch);
    return;
  }
  const LayerParams& layer = LayerOf(work.layer);
  const Grid::Tile tile = work.norm_grid.At(task);
  const int32_t width = work.hidden.width;
  for (int32_t r = tile.first_row; r < tile.first_row + tile.rows; ++r) {
    float* hidden = RowOf(work.hidden, r);
    if (work.delta.data != nullptr) {
      AddNormRow(RowOf(work.delta, r), layer.mlp_post_norm, layer.norm_epsilon, width, hidden);
    }
    NormRow(hidden, work.next_norm, layer.norm_epsilon, width, RowOf(work.normed, r));
  }
}

// The grids of phases 0 and 1.
void PlanProduct(int threads, ResidualWork& work) {
  work.in_grid = RowGrid(work.rows, work.in.width);
  work.grid = ColumnGrid(work.rows, work.hidden.width, threads);
}

// ---- norm + gate and up + activation ------------------------------------------------------

struct GateUpWork {
  NormGateUpParams p;
  Grid norm_grid;
  Grid grid;
};

absl::Status CheckGateUpLayer(const GateUpWork& work) {
  const LayerParams& layer = LayerOf(work.p.layer);
  Checks checks("norm_gate_up", kTypes);
  checks.Weights("gate", layer.gate, work.p.out.width, work.p.hidden.width)
      .Weights("up", layer.up, work.p.out.width, work.p.hidden.width)
      .That(layer.attention_post_norm == nullptr || work.p.sum.data != nullptr,
            "the layer has an attention_post_norm, but delta and sum are null");
  return checks.status();
}

void NormGateUp(const GateUpWork& work, int phase, int32_t task, const Scratch& scratch) {
  const NormGateUpParams& p = work.p;
  const LayerParams& layer = LayerOf(p.layer);
  const ProductRows normed = RowsFor(p.normed, p.rows, scratch);
  if (phase == 0) {
    NormStream({p.hidden, p.delta, p.sum}, layer.attention_post_norm, layer.mlp_norm,
               layer.norm_epsilon, work.norm_grid.At(task), normed,
               InBlocks(layer.gate.dtype) || InBlocks(layer.up.dtype));
    return;
  }
  const Grid::Tile tile = work.grid.At(task);
  float* gate = reinterpret_cast<float*>(scratch.own);
  float* up = gate + int64_t{tile.rows} * tile.columns;
  const auto product = [&](const Matrix& weight, const float* bias, float* out) {
    DotColumnsOf(weight, tile.first_column, tile.columns, normed, tile.first_row, tile.rows, out,
                 tile.columns);
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
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  QkvWork work{p.rows, p.layer, {p.hidden, p.delta, p.sum}, p.normed, p.qkv, Grid(), Grid()};
  work.norm_grid = RowGrid(p.rows, p.hidden.width);
  work.head_grid = HeadGrid(p.rows, p.layer, sink_.threads());
  Call call = Call::Of<NormThenQkv>(work, {work.norm_grid.tasks(), work.head_grid.tasks()});
  call.AddCheck<CheckQkvLayer, QkvWork>();
  return TakeWith(0, call, QuantisedRows::Bytes(p.rows, p.normed.width));
}

absl::Status CpuOps::Run(const QkvParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  QkvWork work{p.rows, p.layer, Stream(), p.normed, p.qkv, Grid(), Grid()};
  work.norm_grid = RowGrid(p.rows, p.normed.width);
  work.head_grid = HeadGrid(p.rows, p.layer, sink_.threads());
  Call call = Call::Of<QkvOnly>(work, {work.norm_grid.tasks(), work.head_grid.tasks()});
  call.AddCheck<CheckQkvLayer, QkvWork>();
  return TakeWith(0, call, QuantisedRows::Bytes(p.rows, p.normed.width));
}

absl::Status CpuOps::Run(const NormQkParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  const NormQkWork work{p, RowGrid(p.rows, p.qkv.width)};
  Call call = Call::Of<NormQk>(work, {work.grid.tasks()});
  call.AddCheck<CheckNormQkLayer, NormQkWork>();
  return sink_.Take(call);
}

absl::Status CpuOps::Run(const OutputResidualParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  ResidualWork work{p.rows, p.layer, p.attention, p.hidden, p.delta};
  PlanProduct(sink_.threads(), work);
  Call call = Call::Of<QuantiseThenAdd<ResidualKind::kOutput>>(
      work, {work.in_grid.tasks(), work.grid.tasks()});
  call.AddCheck<CheckResidualLayer<ResidualKind::kOutput>, ResidualWork>();
  return TakeWith(TileBytes(p.rows), call, QuantisedRows::Bytes(p.rows, work.in.width));
}

absl::Status CpuOps::Run(const DownResidualParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  ResidualWork work{p.rows, p.layer, p.in, p.hidden, p.delta};
  PlanProduct(sink_.threads(), work);
  work.advance = p.advance;
  const int64_t first = work.in_grid.tasks();
  Call call = p.advance != nullptr ? Call::Of<DownResidual>(work, {first, work.grid.tasks(), 1})
                                   : Call::Of<DownResidual>(work, {first, work.grid.tasks()});
  call.AddCheck<CheckResidualLayer<ResidualKind::kDown>, ResidualWork>();
  return TakeWith(TileBytes(p.rows), call, QuantisedRows::Bytes(p.rows, work.in.width));
}

absl::Status CpuOps::Run(const DownNormParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  ResidualWork work{p.rows, p.layer, p.in, p.hidden, p.delta};
  PlanProduct(sink_.threads(), work);
  work.next_norm = p.next_norm;
  work.normed = p.normed;
  work.norm_grid = RowGrid(p.rows, p.hidden.width);
  Call call =
      Call::Of<DownNorm>(work, {work.in_grid.tasks(), work.grid.tasks(), work.norm_grid.tasks()});
  call.AddCheck<CheckResidualLayer<ResidualKind::kDown>, ResidualWork>();
  return TakeWith(TileBytes(p.rows), call, QuantisedRows::Bytes(p.rows, work.in.width));
}

absl::Status CpuOps::Run(const NormGateUpParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  const GateUpWork work{p, RowGrid(p.rows, p.hidden.width),
                        ColumnGrid(p.rows, p.out.width, sink_.threads())};
  Call call = Call::Of<NormGateUp>(work, {work.norm_grid.tasks(), work.grid.tasks()});
  call.AddCheck<CheckGateUpLayer, GateUpWork>();
  return TakeWith(2 * TileBytes(p.rows), call, QuantisedRows::Bytes(p.rows, p.normed.width));
}

absl::Status CpuOps::Run(const OutputGateUpParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  return RunInTurn(*this, p);
}

absl::Status CpuOps::Run(const DownQkvParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  return RunInTurn(*this, p);
}

absl::Status CpuOps::Run(const DecoderLayersParams& p) {
  const Checks checks = CheckParams(p, kTypes);
  if (!checks.ok()) return checks.status();
  return absl::UnimplementedError(
      absl::StrCat(std::string(checks.operation()), ": the CPU does not offer it for any shape"));
}

}  // namespace sirocco::cpu
