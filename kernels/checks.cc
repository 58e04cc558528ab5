#include "kernels/checks.h"

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

constexpr int32_t kMaxRows = 1 << 20;

}  // namespace

std::string DTypes::Names() const {
  std::string names;
  for (int i = kDTypeCount - 1; i >= 0; --i) {
    const DType dtype = static_cast<DType>(i);
    if (!Has(dtype)) continue;
    const std::string_view before = names.empty()                          ? ""
                                    : names.find(' ') == std::string::npos ? " and "
                                                                           : ", ";
    names = absl::StrCat(std::string(NameOf(dtype)), std::string(before), names);
  }
  return names;
}

Checks& Checks::Invalid(std::string what) {
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(std::string(operation_), ": ", what));
  }
  return *this;
}

Checks& Checks::And(const Checks& part) {
  if (status_.ok() && !part.ok()) {
    status_ = absl::Status(part.status_.code(), absl::StrCat(std::string(operation_), ": ",
                                                             std::string(part.status_.message())));
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

Checks& Checks::Within(std::string_view name, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return *this;
  return Invalid(
      absl::StrCat(std::string(name), " is ", value, ", must be ", least, " ... ", most));
}

Checks& Checks::NotNull(std::string_view name, const void* pointer) {
  if (pointer != nullptr) return *this;
  return Invalid(absl::StrCat(std::string(name), " is null"));
}

Checks& Checks::RowCount(int32_t rows) { return Within("rows", rows, 1, kMaxRows); }

Checks& Checks::TakenType(std::string_view name, DType dtype, const DTypes& taken) {
  if (status_.ok() && !taken.Has(dtype)) {
    status_ = absl::UnimplementedError(absl::StrCat(
        std::string(operation_), ": ", std::string(name), " is ", std::string(NameOf(dtype)), ", ",
        std::string(types_.backend), " takes ", taken.Names()));
  }
  return *this;
}

Checks& Checks::Shape(std::string_view name, const Rows& rows, int64_t width) {
  if (rows.width != width || width < 1) {
    return Invalid(absl::StrCat(std::string(name), " is ", rows.width, " wide, must be ", width));
  }
  return NotNull(name, rows.data);
}

Checks& Checks::Activations(std::string_view name, const Rows& rows, int64_t width) {
  return TakenType(name, rows.dtype, types_.activations).Shape(name, rows, width);
}

Checks& Checks::Residual(std::string_view name, const Rows& rows, int64_t width) {
  return TakenType(name, rows.dtype, DTypes(DType::kFloat32)).Shape(name, rows, width);
}

Checks& Checks::Weights(std::string_view name, const Matrix& matrix, int64_t rows, int64_t cols) {
  TakenType(name, matrix.dtype, types_.weights);
  if (matrix.rows != rows || matrix.cols != cols || rows < 1 || cols < 1) {
    return Invalid(absl::StrCat(std::string(name), " is [", matrix.rows, ", ", matrix.cols,
                                "], must be [", rows, ", ", cols, "]"));
  }
  if (const int32_t block = LayoutOf(matrix.dtype).elements; cols % block != 0) {
    return Invalid(absl::StrCat(std::string(name), " has ", cols, " columns, ",
                                std::string(NameOf(matrix.dtype)), " has blocks of ", block));
  }
  return NotNull(name, matrix.data);
}

Checks& Checks::SameType(std::string_view name, DType dtype, std::string_view as_name, DType as) {
  if (status_.ok() && dtype != as) {
    status_ = absl::UnimplementedError(
        absl::StrCat(std::string(operation_), ": ", std::string(name), " is ",
                     std::string(NameOf(dtype)), ", ", std::string(types_.backend), " takes it as ",
                     std::string(as_name), ": ", std::string(NameOf(as))));
  }
  return *this;
}

Checks& Checks::Map(const RowMap& map) {
  return NotNull("map.lane", map.lane).NotNull("map.position", map.position);
}

Checks& Checks::Kv(const KvLayer& kv, const Lanes& lanes) {
  TakenType("kv", kv.dtype, types_.kv);
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
      .That(layer.counter != nullptr || layer.index >= 0, "layer.index is negative")
      .That(layer.counter == nullptr || layer.host == nullptr,
            "layer.host is one layer, and layer.counter may choose another");
}

}  // namespace sirocco
