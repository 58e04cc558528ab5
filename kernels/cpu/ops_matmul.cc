// The matrix product.

#include "kernels/check_params.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/product_rows.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/split.h"
#include "kernels/cpu/types.h"

namespace sirocco::cpu {
namespace {

struct MatMulWork {
  MatMulParams p;
  Grid row_grid;  // of phase 0 where the weight is in blocks
  Grid grid;
};

void MatMulTile(const MatMulWork& work, const Grid::Tile& tile, const Scratch& scratch) {
  const MatMulParams& p = work.p;
  float* out =
      static_cast<float*>(p.out.data) + int64_t{tile.first_row} * p.out.width + tile.first_column;
  DotColumnsOf(p.weight, tile.first_column, tile.columns, RowsFor(p.in, p.rows, scratch),
               tile.first_row, tile.rows, out, p.out.width);
  if (p.bias != nullptr) {
    AddBias(out, p.out.width, tile.rows, p.bias + tile.first_column, tile.columns);
  }
}

void PlainMatMul(const MatMulWork& work, int /*phase*/, int32_t task, const Scratch& scratch) {
  MatMulTile(work, work.grid.At(task), scratch);
}

void BlockMatMul(const MatMulWork& work, int phase, int32_t task, const Scratch& scratch) {
  if (phase == 0) {
    QuantiseTile(RowsFor(work.p.in, work.p.rows, scratch), work.row_grid.At(task));
  } else {
    MatMulTile(work, work.grid.At(task), scratch);
  }
}

}  // namespace

absl::Status CpuOps::Run(const MatMulParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  const MatMulWork work{p, RowGrid(p.rows, p.in.width),
                        ColumnGrid(p.rows, p.weight.rows, sink_.threads())};
  if (!InBlocks(p.weight.dtype)) {
    return sink_.Take(Call::Of<PlainMatMul>(work, {work.grid.tasks()}));
  }
  return TakeWith(0, Call::Of<BlockMatMul>(work, {work.row_grid.tasks(), work.grid.tasks()}),
                  QuantisedRows::Bytes(p.rows, p.in.width));
}

}  // namespace sirocco::cpu
