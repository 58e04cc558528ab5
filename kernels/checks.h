// Checks of parameters: the first thing that is wrong, as a status that names the operation, the
// parameter, what was given and what is taken. Of each operation: check_params.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "kernels/ops.h"

namespace sirocco {

// A set of element types.
class DTypes {
 public:
  template <typename... Types>
  constexpr explicit DTypes(Types... types) : bits_((Bit(types) | ...)) {}
  constexpr bool Has(DType dtype) const { return (bits_ & Bit(dtype)) != 0; }
  std::string Names() const;  // "float32 and bfloat16"

 private:
  static constexpr uint32_t Bit(DType dtype) { return 1u << static_cast<uint32_t>(dtype); }
  uint32_t bits_;
};

// What a backend takes.
struct BackendTypes {
  std::string_view backend;  // "the CPU"
  DTypes activations;        // beside the residual stream and logits, which are float32
  DTypes weights;
  DTypes kv;
};

class Checks {
 public:
  Checks(std::string_view operation, const BackendTypes& types)
      : operation_(operation), types_(types) {}

  // 1 ... 1 << 20.
  Checks& RowCount(int32_t rows);
  // Of a type that the backend takes, not null, `width` wide.
  Checks& Activations(std::string_view name, const Rows& rows, int64_t width);
  // Of the residual stream, or logits: the same in float32.
  Checks& Residual(std::string_view name, const Rows& rows, int64_t width);
  // Of a type that the backend takes, not null, [rows, cols].
  Checks& Weights(std::string_view name, const Matrix& matrix, int64_t rows, int64_t cols);
  Checks& SameType(std::string_view name, DType dtype, std::string_view as_name, DType as);
  Checks& Positive(std::string_view name, int64_t value);
  Checks& Within(std::string_view name, int64_t value, int64_t least, int64_t most);
  Checks& NotNull(std::string_view name, const void* pointer);
  Checks& Map(const RowMap& map);
  Checks& Kv(const KvLayer& kv, const Lanes& lanes);
  Checks& Rotary(const RotaryTable& table, int32_t head_dim);
  // The table and the shapes of a reference to a layer.
  Checks& Layer(const LayerRef& layer);
  Checks& That(bool holds, std::string_view what);
  // Of an operation that is part of this one: what it says, behind both names.
  Checks& And(const Checks& part);

  std::string_view operation() const { return operation_; }
  bool ok() const { return status_.ok(); }
  absl::Status status() const { return status_; }

 private:
  Checks& Invalid(std::string what);
  Checks& TakenType(std::string_view name, DType dtype, const DTypes& taken);
  Checks& Shape(std::string_view name, const Rows& rows, int64_t width);

  std::string_view operation_;
  const BackendTypes& types_;
  absl::Status status_;
};

}  // namespace sirocco
