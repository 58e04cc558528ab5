#include "kernels/cpu/pack.h"

#include <cstring>
#include <vector>

#include "kernels/cpu/block_at.h"
#include "kernels/cpu/block_kernels.h"

namespace sirocco::cpu {
namespace {

// The place of row r of a group beside the others at one column.
template <typename T>
constexpr int32_t PlaceOf(int32_t r) {
  return sizeof(T) == 2 ? r % 8 * 2 + r / 8 : r;
}

template <typename T>
void PackPlainGroup(int32_t cols, const std::byte* stored, std::byte* group) {
  for (int32_t c = 0; c < cols; ++c) {
    T side_by_side[kGroupRows];
    for (int32_t r = 0; r < kGroupRows; ++r) {
      const int64_t from = (int64_t{r} * cols + c) * static_cast<int64_t>(sizeof(T));
      std::memcpy(&side_by_side[PlaceOf<T>(r)], stored + from, sizeof(T));
    }
    std::memcpy(group + c * sizeof(side_by_side), side_by_side, sizeof(side_by_side));
  }
}

float ToFloat(float value) { return value; }
float ToFloat(BFloat16 value) { return value.ToFloat(); }

template <typename T>
void UnpackPlainRow(const Matrix& weight, int32_t row, float scale, float* out) {
  const bool packed = row < PackedRows(weight);
  const int32_t in_group = packed ? row % kGroupRows : 0;
  const int32_t stride = packed ? kGroupRows : 1;
  const T* from = reinterpret_cast<const T*>(RowsAt(weight, row - in_group)) + PlaceOf<T>(in_group);
  for (int32_t c = 0; c < weight.cols; ++c) out[c] = ToFloat(from[c * stride]) * scale;
}

// One group, from `stored` in the files' order.
void PackBlockGroup(const Matrix& weight, const std::byte* stored, std::byte* group) {
  const DType type = weight.dtype;
  const int64_t row_bytes = RowsAt(weight, 1) - RowsAt(weight, 0);
  for (int32_t b = 0; b < weight.cols / kBlockElements; ++b) {
    std::byte* to = group + b * GroupBlockBytes(type);
    for (int32_t r = 0; r < kGroupRows; ++r) {
      const std::byte* from = stored + r * row_bytes + b * LayoutOf(type).bytes;
      std::memcpy(to + 2 * r, from, 2);
      if (type == DType::kQ4_1) std::memcpy(to + MinimaAt() + 2 * r, from + 2, 2);
      from += WordsAt(type) / kGroupRows;
      for (int w = 0; w < WordsOf(type); ++w) {
        std::memcpy(to + WordsAt(type) + 4 * (w * kGroupRows + r), from + 4 * w, 4);
      }
    }
  }
}

void UnpackBlocksRow(const Matrix& weight, int32_t row, float scale, float* out) {
  for (int32_t b = 0; b < weight.cols / kBlockElements; ++b) {
    const PlainBlock block = BlockAt(weight, row, b);
    for (int i = 0; i < kBlockElements; ++i) {
      out[b * kBlockElements + i] = (static_cast<float>(block.q[i]) * block.d + block.m) * scale;
    }
  }
}

}  // namespace

void PackGroup(const Matrix& weight, int32_t first_row) {
  const std::byte* from = RowsAt(weight, first_row);
  const std::vector<std::byte> stored(from, RowsAt(weight, first_row + kGroupRows));
  // The matrix is the device's, which is about to own its order.
  std::byte* group = const_cast<std::byte*>(from);
  if (InBlocks(weight.dtype)) {
    PackBlockGroup(weight, stored.data(), group);
  } else if (weight.dtype == DType::kFloat32) {
    PackPlainGroup<float>(weight.cols, stored.data(), group);
  } else {
    PackPlainGroup<BFloat16>(weight.cols, stored.data(), group);
  }
}

void UnpackRow(const Matrix& weight, int32_t row, float scale, float* out) {
  if (InBlocks(weight.dtype)) {
    UnpackBlocksRow(weight, row, scale, out);
  } else if (weight.dtype == DType::kFloat32) {
    UnpackPlainRow<float>(weight, row, scale, out);
  } else {
    UnpackPlainRow<BFloat16>(weight, row, scale, out);
  }
}

}  // namespace sirocco::cpu
