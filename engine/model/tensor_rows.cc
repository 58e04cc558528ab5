#include "engine/model/tensor_rows.h"

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/dequantise.h"
#include "engine/model/file_error.h"

namespace sirocco {
namespace {

// `count` values stored from `data` on; whole blocks.
void Convert(StoredType type, const std::byte* data, int64_t count, float* out) {
  switch (type) {
    case StoredType::kF32:
      std::memcpy(out, data, static_cast<size_t>(count) * sizeof(float));
      return;
    case StoredType::kF16:
      for (int64_t i = 0; i < count; ++i) out[i] = Float16ToFloat(LoadHalf(data + 2 * i));
      return;
    case StoredType::kBF16:
      for (int64_t i = 0; i < count; ++i) out[i] = BFloat16{LoadHalf(data + 2 * i)}.ToFloat();
      return;
    default:
      break;
  }
  const BlockLayout layout = LayoutOf(type);
  for (int64_t i = 0; i < count; i += layout.elements) {
    DequantiseBlock(type, data, out + i);
    data += layout.bytes;
  }
}

// What `count` values, whole blocks, take as they are stored.
size_t StoredBytesOf(const StoredTensor& tensor, int64_t count) {
  const BlockLayout layout = LayoutOf(tensor.type);
  return static_cast<size_t>(count / layout.elements * layout.bytes);
}

// Reads as they are stored, from the row `row` as stored on, as many values as fill `out`.
absl::Status ReadStored(const StoredTensor& tensor, int64_t row, std::span<std::byte> out) {
  return tensor.reader->Read(tensor.offset + StoredBytesOf(tensor, row * RowElements(tensor)), out);
}

// The stored row that is row `row` once unpermuted: of each head, stored rows 2i and 2i + 1 are a
// rotary pair, which Hugging Face's order has half a head apart.
int64_t StoredRow(const StoredTensor& tensor, int64_t row) {
  const int64_t head_rows = tensor.shape.front() / tensor.permuted_heads;
  const int64_t in_head = row % head_rows;
  const int64_t half = head_rows / 2;
  return row - in_head + 2 * (in_head % half) + in_head / half;
}

// Of `count` values from row `first_row` on.
absl::Status CheckRange(const StoredTensor& tensor, int64_t first_row, int64_t count) {
  const BlockLayout layout = LayoutOf(tensor.type);
  const int64_t width = RowElements(tensor);
  const int64_t all_rows = tensor.shape.empty() ? 1 : tensor.shape.front();
  const int64_t rows = count / width;
  const bool permuted = tensor.permuted_heads > 0;
  if (first_row < 0 || first_row > all_rows || rows > all_rows - first_row || count % width != 0 ||
      first_row * width % layout.elements != 0 || count % layout.elements != 0 ||
      (permuted &&
       (width % layout.elements != 0 || all_rows % (2 * int64_t{tensor.permuted_heads}) != 0))) {
    return InvalidFile(tensor.file,
                       absl::StrCat("tensor ", Shown(tensor.name), ", ", DescribeTensor(tensor),
                                    ", has no ", count, " values from row ", first_row, " on"));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t RowElements(const StoredTensor& tensor) {
  int64_t elements = 1;
  for (size_t i = 1; i < tensor.shape.size(); ++i) elements *= tensor.shape[i];
  return elements;
}

absl::Status ReadRows(const StoredTensor& tensor, int64_t first_row, std::span<float> out) {
  const int64_t width = RowElements(tensor);
  const int64_t count = static_cast<int64_t>(out.size());
  if (absl::Status s = CheckRange(tensor, first_row, count); !s.ok()) return s;
  // All at once, or a row at a time from where it is stored.
  const int64_t piece = tensor.permuted_heads == 0 ? count : width;
  std::vector<std::byte> stored(StoredBytesOf(tensor, piece));
  for (int64_t done = 0; done < count; done += piece) {
    const int64_t row =
        tensor.permuted_heads == 0 ? first_row : StoredRow(tensor, first_row + done / width);
    if (absl::Status s = ReadStored(tensor, row, stored); !s.ok()) return s;
    Convert(tensor.type, stored.data(), piece, &out[done]);
  }
  if (tensor.added != 0) {
    for (float& value : out) value += tensor.added;
  }
  return absl::OkStatus();
}

void StoreAs(std::span<const float> values, DType dtype, std::byte* out) {
  if (dtype == DType::kFloat32) {
    std::memcpy(out, values.data(), values.size_bytes());
    return;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits =
        dtype == DType::kBFloat16 ? BFloat16::FromFloat(values[i]).bits : FloatToFloat16(values[i]);
    std::memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

absl::Status CopyRows(const StoredTensor& tensor, int64_t first_row, std::span<std::byte> out) {
  const BlockLayout layout = LayoutOf(tensor.type);
  const int64_t width = RowElements(tensor);
  const int64_t row_bytes = width / layout.elements * layout.bytes;
  const int64_t bytes = static_cast<int64_t>(out.size());
  if (row_bytes == 0 || bytes % row_bytes != 0 || tensor.added != 0) {
    return InvalidFile(tensor.file,
                       absl::StrCat("tensor ", Shown(tensor.name), ", ", DescribeTensor(tensor),
                                    ", has no rows of ", bytes, " bytes as it is stored"));
  }
  const int64_t rows = bytes / row_bytes;
  if (absl::Status s = CheckRange(tensor, first_row, rows * width); !s.ok()) return s;
  if (tensor.permuted_heads == 0) return ReadStored(tensor, first_row, out);
  for (int64_t i = 0; i < rows; ++i) {
    absl::Status s =
        ReadStored(tensor, StoredRow(tensor, first_row + i), out.subspan(i * row_bytes, row_bytes));
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace sirocco
