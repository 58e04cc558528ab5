// Checks of an operation's parameters: the first thing that is wrong, as a status that names the
// operation, the parameter, what was given and what is taken.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/ops.h"

namespace sirocco::cpu {

class Checks {
 public:
  explicit Checks(std::string_view operation) : operation_(operation) {}

  // 1 ... 1 << 20.
  Checks& RowCount(int32_t rows);
  // float32, not null, `width` wide.
  Checks& Activations(std::string_view name, const Rows& rows, int64_t width);
  // float32 or bfloat16, not null, [rows, cols].
  Checks& Weights(std::string_view name, const Matrix& matrix, int64_t rows, int64_t cols);
  Checks& Positive(std::string_view name, int64_t value);
  Checks& NotNull(std::string_view name, const void* pointer);
  Checks& Map(const RowMap& map);
  Checks& Kv(const KvLayer& kv, const Lanes& lanes);
  Checks& Rotary(const RotaryTable& table, int32_t head_dim);
  // The table and the shapes of a reference to a layer.
  Checks& Layer(const LayerRef& layer);
  Checks& That(bool holds, std::string_view what);

  bool ok() const { return status_.ok(); }
  absl::Status status() const { return status_; }

 private:
  Checks& Invalid(std::string what);

  std::string_view operation_;
  absl::Status status_;
};

}  // namespace sirocco::cpu
