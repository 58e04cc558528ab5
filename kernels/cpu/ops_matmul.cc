// The matrix product.

#include "kernels/check_params.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/split.h"
#include "kernels/cpu/types.h"

namespace sirocco::cpu {
namespace {

struct MatMulWork {
  MatMulParams p;
  Grid grid;
};

void MatMulTile(const MatMulWork& work, int /*phase*/, int32_t task, const Scratch&) {
  const MatMulParams& p = work.p;
  const Grid::Tile tile = work.grid.At(task);
  const float* in = static_cast<const float*>(p.in.data) + int64_t{tile.first_row} * p.in.width;
  float* out =
      static_cast<float*>(p.out.data) + int64_t{tile.first_row} * p.out.width + tile.first_column;
  DotColumnsOf(p.weight, tile.first_column, tile.columns, in, p.in.width, tile.rows, out,
               p.out.width);
  if (p.bias != nullptr) {
    AddBias(out, p.out.width, tile.rows, p.bias + tile.first_column, tile.columns);
  }
}

}  // namespace

absl::Status CpuOps::Run(const MatMulParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  const MatMulWork work{p, ColumnGrid(p.rows, p.weight.rows, sink_.threads())};
  return sink_.Take(Call::Of<MatMulTile>(work, {work.grid.tasks()}));
}

}  // namespace sirocco::cpu
