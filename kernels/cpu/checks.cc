#include "kernels/cpu/checks.h"

#include <utility>

namespace sirocco::cpu {
namespace {

constexpr int32_t kMaxRows = 1 << 20;

}  // namespace

Checks& Checks::Invalid(std::string what) {
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(std::string(operation_), ": ", what));
  }
  return *this;
}

Checks& Checks::That(bool holds, std::string_view what) {
  return holds ? *this : Invalid(std::string(what));
}

Checks& Checks::Positive(std::string_view name, int64_t value) {
  if (value >= 1) return *this;
  return Invalid(absl::StrCat(std::string(name), " is ", value, ", must be at least 1"));
}

Checks& Checks::NotNull(std::string_view name, const void* pointer) {
  if (pointer != nullptr) return *this;
  return Invalid(absl::StrCat(std::string(name), " is null"));
}

Checks& Checks::RowCount(int32_t rows) {
  if (rows >= 1 && rows <= kMaxRows) return *this;
  return Invalid(absl::StrCat("rows is ", rows, ", must be 1 ... ", kMaxRows));
}

Checks& Checks::Activations(std::string_view name, const Rows& rows, int64_t width) {
  if (status_.ok() && rows.dtype != DType::kFloat32) {
    status_ = absl::UnimplementedError(
        absl::StrCat(std::string(operation_), ": ", std::string(name), " is ",
                     std::string(NameOf(rows.dtype)), ", the CPU takes float32"));
  }
  if (rows.width != width || width < 1) {
    return Invalid(absl::StrCat(std::string(name), " is ", rows.width, " wide, must be ", width));
  }
  return NotNull(name, rows.data);
}

Checks& Checks::Weights(std::string_view name, const Matrix& matrix, int64_t rows, int64_t cols) {
  if (status_.ok() && matrix.dtype == DType::kFloat16) {
    status_ =
        absl::UnimplementedError(absl::StrCat(std::string(operation_), ": ", std::string(name),
                                              " is float16, the CPU takes float32 and bfloat16"));
  }
  if (matrix.rows != rows || matrix.cols != cols || rows < 1 || cols < 1) {
    return Invalid(absl::StrCat(std::string(name), " is [", matrix.rows, ", ", matrix.cols,
                                "], must be [", rows, ", ", cols, "]"));
  }
  return NotNull(name, matrix.data);
}

Checks& Checks::Map(const RowMap& map) {
  return NotNull("map.lane", map.lane).NotNull("map.position", map.position);
}

Checks& Checks::Kv(const KvLayer& kv, const Lanes& lanes) {
  if (status_.ok() && kv.dtype == DType::kFloat16) {
    status_ = absl::UnimplementedError(absl::StrCat(
        std::string(operation_), ": kv is float16, the CPU takes float32 and bfloat16"));
  }
  if (kv.group < 0 || kv.group >= lanes.groups) {
    return Invalid(absl::StrCat("kv.group is ", kv.group, ", the lanes have ", lanes.groups));
  }
  return NotNull("kv.data", kv.data)
      .NotNull("lanes.block_table", lanes.block_table)
      .Positive("kv.block_size", kv.block_size)
      .Positive("kv.kv_heads", kv.kv_heads)
      .Positive("kv.head_dim", kv.head_dim);
}

Checks& Checks::Rotary(const RotaryTable& table, int32_t head_dim) {
  if (table.dim < 0 || table.dim > head_dim || table.dim % 2 != 0) {
    return Invalid(
        absl::StrCat("rotary dim is ", table.dim, ", must be even and at most ", head_dim));
  }
  return table.dim == 0 ? *this : NotNull("rotary cos_sin", table.cos_sin);
}

Checks& Checks::Layer(const LayerRef& layer) {
  return NotNull("layer.table", layer.table)
      .That(layer.counter != nullptr || layer.index >= 0, "layer.index is negative");
}

}  // namespace sirocco::cpu
