#include "engine/model/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "engine/model/weight_places.h"

namespace sirocco {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{16} << 20;
constexpr uint64_t kAlignment = 256;  // of each weight on the device

void Store(float value, DType dtype, std::byte* to) {
  if (dtype == DType::kFloat32) {
    std::memcpy(to, &value, sizeof(value));
    return;
  }
  const uint16_t bits =
      dtype == DType::kBFloat16 ? BFloat16::FromFloat(value).bits : FloatToFloat16(value);
  std::memcpy(to, &bits, sizeof(bits));
}

class Maker {
 public:
  Maker(Device& device, DType dtype, uint64_t seed, uint64_t total, const LoadProgress& progress)
      : device_(device), dtype_(dtype), random_(seed), total_(total), progress_(progress) {}

  // `width`: the longest row of a matrix, whose sums set the size of all values.
  absl::Status MakeBlock(int64_t width) {
    absl::StatusOr<std::unique_ptr<Buffer>> block = device_.AllocateHost(kBlockBytes);
    if (!block.ok()) return block.status();
    block_ = *std::move(block);
    const float most = std::sqrt(3.0f / static_cast<float>(width));  // a variance of 1 / width
    std::uniform_real_distribution<float> uniform(-most, most);
    const size_t size = BytesOf(dtype_);
    for (uint64_t at = 0; at < kBlockBytes; at += size) {
      Store(uniform(random_), dtype_, block_->as<std::byte>() + at);
    }
    return absl::OkStatus();
  }

  // From places in the block that change: a matrix is not made of equal parts.
  absl::Status FillMatrix(std::byte* to, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) {
      const uint64_t from = random_() % (kBlockBytes / 2) / kAlignment * kAlignment;
      const uint64_t chunk = std::min(kBlockBytes - from, bytes - done);
      absl::Status status = device_.CopyToDevice(to + done, block_->as<std::byte>() + from, chunk);
      if (!status.ok()) return status;
      done += chunk;
      done_ += chunk;
      if (progress_) progress_(done_, total_);
    }
    return absl::OkStatus();
  }

  absl::Status FillVector(std::byte* to, int64_t size, float value) {
    const std::vector<float> values(size, value);
    absl::Status status = device_.CopyToDevice(to, values.data(), values.size() * sizeof(float));
    // `values` goes.
    return status.ok() ? device_.Synchronize() : status;
  }

 private:
  Device& device_;
  const DType dtype_;
  std::mt19937_64 random_;
  const uint64_t total_;
  const LoadProgress& progress_;
  uint64_t done_ = 0;
  std::unique_ptr<Buffer> block_;
};

}  // namespace

absl::StatusOr<ModelWeights> RandomWeights(const ModelDescriptor& descriptor, DType dtype,
                                           uint64_t seed, Device& device,
                                           const LoadProgress& progress) {
  ModelWeights weights;
  const std::vector<WeightPlace> places = WeightPlaces(descriptor, weights);
  const uint64_t bytes = WeightBytes(descriptor, dtype);
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = device.Allocate(bytes, MemoryUse::kWeights);
  if (!buffer.ok()) return buffer.status();
  Maker maker(device, dtype, seed, bytes, progress);
  absl::Status status =
      maker.MakeBlock(std::max(descriptor.hidden_size, descriptor.intermediate_size));
  uint64_t offset = 0;
  for (const WeightPlace& place : places) {
    if (!status.ok()) return status;
    int64_t elements = 1;
    for (const int64_t extent : place.shape) elements *= extent;
    offset = (offset + kAlignment - 1) / kAlignment * kAlignment;
    std::byte* const data = (*buffer)->as<std::byte>() + offset;
    if (place.matrix != nullptr) {
      place.matrix->data = data;
      place.matrix->dtype = dtype;
      const uint64_t size = static_cast<uint64_t>(elements) * BytesOf(dtype);
      status = maker.FillMatrix(data, size);
      offset += size;
    } else {
      *place.vector = reinterpret_cast<const float*>(data);
      const bool norm = absl::EndsWith(place.tensor, ".weight");
      status = maker.FillVector(data, elements, norm ? 1.0f : 0.01f);
      offset += static_cast<uint64_t>(elements) * sizeof(float);
    }
    weights.parameter_count += static_cast<uint64_t>(elements);
  }
  if (status.ok()) status = device.Synchronize();
  if (!status.ok()) return status;
  if (descriptor.tied_head) weights.head = weights.embedding;
  weights.memory.push_back(*std::move(buffer));
  return weights;
}

}  // namespace sirocco
