#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/model_files.h"
#include "engine/model/tensor_rows.h"
#include "engine/model/weight_places.h"

namespace sirocco {
namespace {

constexpr uint64_t kChunkBytes = 32 << 20;  // at most this much goes to the device at once
constexpr int64_t kPieceValues = 1 << 16;   // converted at once: what caches hold

// Streams tensors to the device, and tells how far it is.
class Loader {
 public:
  Loader(Device& device, std::byte* memory, uint64_t total, const LoadProgress& progress)
      : device_(device), memory_(memory), total_(total), progress_(progress) {}

  absl::Status Load(const StoredTensor& tensor, const WeightPlace& place) {
    const bool as_it_is = tensor.permuted_heads == 0 && tensor.added == 0;
    if (as_it_is && DTypeOf(tensor.type) == place.dtype) {
      return Copy(place.offset, tensor.data, place.bytes());
    }
    return Convert(tensor, place);
  }

 private:
  // `from` stays valid until the last Synchronize, as mapped files do.
  absl::Status Copy(uint64_t to, const std::byte* from, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) {
      const uint64_t chunk = std::min(kChunkBytes, bytes - done);
      absl::Status status = device_.CopyToDevice(memory_ + to + done, from + done, chunk);
      if (!status.ok()) return status;
      done += chunk;
      done_ += chunk;
      if (progress_) progress_(done_, total_);
    }
    return absl::OkStatus();
  }

  // Two buffers in turn: while one is on its way to the device the other is filled.
  struct Staging {
    std::unique_ptr<Buffer> memory;
    std::optional<DeviceMark> copied;  // what it held last is on the device
  };

  absl::Status Convert(const StoredTensor& tensor, const WeightPlace& place) {
    const int64_t width = RowElements(tensor);
    const int64_t rows = static_cast<int64_t>(place.elements) / width;
    // Whole rows, and of a vector whole blocks: both divide kPieceValues where rows are narrow.
    const int64_t piece_rows = std::min(rows, std::max<int64_t>(1, kPieceValues / width));
    const uint64_t row_bytes = BytesOf(place.dtype, static_cast<uint64_t>(width));
    uint64_t to = place.offset;
    for (int64_t row = 0; row < rows;) {
      Staging& staging = staging_[std::exchange(next_staging_, 1 - next_staging_)];
      absl::Status status = Free(staging, piece_rows * row_bytes);
      uint64_t filled = 0;
      while (status.ok() && row < rows) {
        const int64_t count = std::min(piece_rows, rows - row);
        if (filled + count * row_bytes > staging.memory->bytes()) break;
        const std::span<std::byte> piece(staging.memory->as<std::byte>() + filled,
                                         count * row_bytes);
        status = InBlocks(place.dtype) ? CopyRows(tensor, row, piece)
                                       : ReadAs(tensor, row, count * width, place.dtype, piece);
        if (!status.ok()) break;
        filled += count * row_bytes;
        row += count;
      }
      if (status.ok()) status = Copy(to, staging.memory->as<std::byte>(), filled);
      if (!status.ok()) return status;
      const absl::StatusOr<DeviceMark> copied = device_.Mark();
      if (!copied.ok()) return copied.status();
      staging.copied = *copied;
      to += filled;
    }
    return absl::OkStatus();
  }

  // `count` values from row `row` on, as `dtype`.
  absl::Status ReadAs(const StoredTensor& tensor, int64_t row, int64_t count, DType dtype,
                      std::span<std::byte> out) {
    values_.resize(count);
    absl::Status status = ReadRows(tensor, row, values_);
    if (status.ok()) StoreAs(values_, dtype, out.data());
    return status;
  }

  // Makes `staging` hold at least `bytes`, and waits until the device has read what it held.
  absl::Status Free(Staging& staging, uint64_t bytes) {
    if (staging.copied) {
      absl::Status status = device_.Wait(*std::exchange(staging.copied, std::nullopt));
      if (!status.ok()) return status;
    }
    if (staging.memory != nullptr && staging.memory->bytes() >= bytes) return absl::OkStatus();
    absl::StatusOr<std::unique_ptr<Buffer>> memory =
        device_.AllocateHost(std::max(kChunkBytes, bytes));
    if (!memory.ok()) return memory.status();
    staging.memory = *std::move(memory);
    return absl::OkStatus();
  }

  Device& device_;
  std::byte* const memory_;
  const uint64_t total_;
  const LoadProgress& progress_;
  uint64_t done_ = 0;
  std::vector<float> values_;
  Staging staging_[2];
  int next_staging_ = 0;
};

}  // namespace

uint64_t WeightBytes(const ModelDescriptor& descriptor, const WeightTypes& types) {
  ModelWeights scratch;
  return LayOutWeights(descriptor, types, scratch).bytes;
}

absl::StatusOr<ModelWeights> LoadWeights(const ModelFiles& files, const WeightTypes& types,
                                         Device& device, const LoadProgress& progress) {
  ModelWeights weights;
  const WeightLayout layout = LayOutWeights(files.descriptor, types, weights);
  absl::StatusOr<std::unique_ptr<Buffer>> buffer =
      device.Allocate(layout.bytes, MemoryUse::kWeights);
  if (!buffer.ok()) return buffer.status();
  Loader loader(device, (*buffer)->as<std::byte>(), layout.weight_bytes, progress);
  for (const WeightPlace& place : layout.places) {
    const auto load = [&](const std::string& name, const std::vector<int64_t>& shape,
                          uint64_t before) {
      const StoredTensor* tensor = files.tensors->Find(name);
      if (tensor == nullptr || tensor->shape != shape) {
        return InvalidFile(files.name, absl::StrCat("has no tensor ", Shown(name),
                                                    " of the shape that its settings ask for"));
      }
      WeightPlace own = place;
      own.offset += BytesOf(place.dtype, before);
      own.elements /= std::max<size_t>(place.parts.size(), 1);
      return loader.Load(*tensor, own);
    };
    if (absl::Status status = ForEachTensor(place, load); !status.ok()) return status;
  }
  if (absl::Status status = device.Synchronize(); !status.ok()) return status;
  absl::Status status = BindWeights(files.descriptor, layout, device, *std::move(buffer), weights);
  if (!status.ok()) return status;
  return weights;
}

}  // namespace sirocco
