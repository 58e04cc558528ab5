#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/checked.h"
#include "engine/model/file_error.h"
#include "engine/model/model_files.h"
#include "engine/model/tensor_rows.h"
#include "engine/model/weight_places.h"

namespace sirocco {
namespace {

constexpr uint64_t kAlignment = 256;        // of each weight on the device
constexpr uint64_t kChunkBytes = 16 << 20;  // at most this much goes to the device at once
constexpr int64_t kPieceValues = 1 << 16;   // converted at once: what caches hold

bool IsStoredAs(StoredType type, DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return type == StoredType::kF32;
    case DType::kBFloat16:
      return type == StoredType::kBF16;
    case DType::kFloat16:
      return type == StoredType::kF16;
  }
  return false;
}

void Round(std::span<const float> values, DType dtype, std::byte* out) {
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

// A weight's tensor and its place in the one buffer of all weights.
struct Planned {
  const StoredTensor* tensor = nullptr;
  DType dtype = DType::kFloat32;
  uint64_t elements = 0;
  uint64_t offset = 0;
  uint64_t bytes() const { return elements * BytesOf(dtype); }
};

// Streams tensors to the device, and tells how far it is.
class Loader {
 public:
  Loader(Device& device, std::byte* memory, uint64_t total, const LoadProgress& progress)
      : device_(device), memory_(memory), total_(total), progress_(progress) {}

  absl::Status Load(const Planned& weight) {
    const StoredTensor& tensor = *weight.tensor;
    const bool as_it_is = tensor.permuted_heads == 0 && tensor.added == 0;
    if (as_it_is && IsStoredAs(tensor.type, weight.dtype)) {
      return Copy(weight.offset, weight.tensor->data, weight.bytes());
    }
    return Convert(weight);
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

  absl::Status Convert(const Planned& weight) {
    const int64_t width = RowElements(*weight.tensor);
    const int64_t rows = static_cast<int64_t>(weight.elements) / width;
    // Whole rows, and of a vector whole blocks: both divide kPieceValues where rows are narrow.
    const int64_t piece_rows = std::min(rows, std::max<int64_t>(1, kPieceValues / width));
    const uint64_t row_bytes = width * BytesOf(weight.dtype);
    values_.resize(piece_rows * width);
    uint64_t to = weight.offset;
    for (int64_t row = 0; row < rows;) {
      Staging& staging = staging_[std::exchange(next_staging_, 1 - next_staging_)];
      absl::Status status = Free(staging, piece_rows * row_bytes);
      uint64_t filled = 0;
      while (status.ok() && row < rows) {
        const int64_t count = std::min(piece_rows, rows - row);
        if (filled + count * row_bytes > staging.memory->bytes()) break;
        const std::span<float> piece(values_.data(), count * width);
        status = ReadRows(*weight.tensor, row, piece);
        if (!status.ok()) break;
        Round(piece, weight.dtype, staging.memory->as<std::byte>() + filled);
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

// Finds each weight's tensor and gives it a place; `end`: the bytes of all.
absl::StatusOr<std::vector<Planned>> Plan(const ModelFiles& files,
                                          const std::vector<WeightPlace>& places, DType dtype,
                                          uint64_t* end) {
  std::vector<Planned> plan;
  *end = 0;
  for (const WeightPlace& place : places) {
    Planned weight;
    weight.tensor = files.tensors->Find(place.tensor);
    if (weight.tensor == nullptr || weight.tensor->shape != place.shape) {
      return InvalidFile(files.name, absl::StrCat("has no tensor ", Shown(place.tensor),
                                                  " of the shape that its settings ask for"));
    }
    weight.dtype = place.matrix ? dtype : DType::kFloat32;
    const auto elements = CheckedProduct<int64_t>(place.shape);
    const std::optional<uint64_t> begin = CheckedAlignUp(*end, kAlignment);
    const std::optional<uint64_t> bytes =
        elements ? CheckedMul<uint64_t>(*elements, BytesOf(weight.dtype)) : std::nullopt;
    const std::optional<uint64_t> next = begin && bytes ? CheckedAdd(*begin, *bytes) : std::nullopt;
    if (!next) return InvalidFile(files.name, "its weights take more than 2^64 bytes");
    weight.elements = static_cast<uint64_t>(*elements);
    weight.offset = *begin;
    *end = *next;
    plan.push_back(weight);
  }
  return plan;
}

}  // namespace

uint64_t WeightBytes(const ModelDescriptor& descriptor, DType dtype) {
  ModelWeights scratch;
  uint64_t bytes = 0;
  for (const WeightPlace& place : WeightPlaces(descriptor, scratch)) {
    uint64_t elements = 1;
    for (const int64_t extent : place.shape) elements *= static_cast<uint64_t>(extent);
    bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    bytes += elements * BytesOf(place.matrix != nullptr ? dtype : DType::kFloat32);
  }
  return bytes;
}

absl::StatusOr<ModelWeights> LoadWeights(const ModelFiles& files, DType dtype, Device& device,
                                         const LoadProgress& progress) {
  ModelWeights weights;
  const std::vector<WeightPlace> places = WeightPlaces(files.descriptor, weights);
  uint64_t end = 0;
  const absl::StatusOr<std::vector<Planned>> plan = Plan(files, places, dtype, &end);
  if (!plan.ok()) return plan.status();
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = device.Allocate(end, MemoryUse::kWeights);
  if (!buffer.ok()) return buffer.status();
  std::byte* const memory = (*buffer)->as<std::byte>();

  uint64_t total = 0;
  for (const Planned& weight : *plan) total += weight.bytes();
  Loader loader(device, memory, total, progress);
  for (size_t i = 0; i < places.size(); ++i) {
    const Planned& weight = (*plan)[i];
    if (absl::Status status = loader.Load(weight); !status.ok()) return status;
    std::byte* const data = memory + weight.offset;
    if (places[i].matrix) {
      places[i].matrix->data = data;
      places[i].matrix->dtype = dtype;
    } else {
      *places[i].vector = reinterpret_cast<const float*>(data);
    }
    weights.parameter_count += weight.elements;
  }
  if (absl::Status status = device.Synchronize(); !status.ok()) return status;
  if (files.descriptor.tied_head) weights.head = weights.embedding;
  weights.memory.push_back(*std::move(buffer));
  return weights;
}

}  // namespace sirocco
