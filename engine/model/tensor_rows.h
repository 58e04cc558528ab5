// Rows of stored tensors as float32 values, and such values as a device's types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "engine/model/tensor_source.h"
#include "kernels/dtype.h"

namespace sirocco {

// Values of one row: a matrix [rows, cols] has rows of cols, a vector [n] has n rows of one.
int64_t RowElements(const StoredTensor& tensor);

// Converts rows [first_row, first_row + out.size() / RowElements): dequantised, q and k
// unpermuted, `added` added. INVALID_ARGUMENT where the range is not one of whole rows and blocks
// of the tensor; the reader's errors.
absl::Status ReadRows(const StoredTensor& tensor, int64_t first_row, std::span<float> out);

// Writes each value as a `dtype`, rounded to the nearest.
void StoreAs(std::span<const float> values, DType dtype, std::byte* out);

// The same rows as they are stored, q and k unpermuted: `out` holds whole rows of whole blocks. A
// tensor with something `added` has no such rows.
absl::Status CopyRows(const StoredTensor& tensor, int64_t first_row, std::span<std::byte> out);

}  // namespace sirocco
