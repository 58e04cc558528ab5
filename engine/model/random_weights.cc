#include "engine/model/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "engine/model/tensor_rows.h"
#include "engine/model/weight_places.h"

namespace sirocco {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{16} << 20;
constexpr uint64_t kGrain = 256;  // where copies out of the block may begin

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
    std::vector<float> values(kBlockBytes / BytesOf(dtype_));
    for (float& value : values) value = uniform(random_);
    StoreAs(values, dtype_, block_->as<std::byte>());
    return absl::OkStatus();
  }

  // From places in the block that change: a matrix is not made of equal parts.
  absl::Status FillMatrix(std::byte* to, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) {
      const uint64_t from = random_() % (kBlockBytes / 2) / kGrain * kGrain;
      const uint64_t chunk = std::min(kBlockBytes - from, bytes - done);
      absl::Status status = device_.CopyToDevice(to + done, block_->as<std::byte>() + from, chunk);
      if (!status.ok()) return status;
      done += chunk;
      Advance(chunk);
    }
    return absl::OkStatus();
  }

  absl::Status FillVector(std::byte* to, uint64_t size, float value) {
    const std::vector<float> values(size, value);
    absl::Status status = device_.CopyToDevice(to, values.data(), values.size() * sizeof(float));
    if (status.ok()) status = device_.Synchronize();  // `values` goes
    if (status.ok()) Advance(values.size() * sizeof(float));
    return status;
  }

 private:
  void Advance(uint64_t bytes) {
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }

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
  const WeightLayout layout = LayOutWeights(descriptor, dtype, weights);
  absl::StatusOr<std::unique_ptr<Buffer>> buffer =
      device.Allocate(layout.bytes, MemoryUse::kWeights);
  if (!buffer.ok()) return buffer.status();
  Maker maker(device, dtype, seed, layout.weight_bytes, progress);
  absl::Status status =
      maker.MakeBlock(std::max(descriptor.hidden_size, descriptor.intermediate_size));
  for (const WeightPlace& place : layout.places) {
    if (!status.ok()) return status;
    std::byte* const data = (*buffer)->as<std::byte>() + place.offset;
    if (place.matrix != nullptr) {
      status = maker.FillMatrix(data, place.bytes());
    } else {
      const bool norm = absl::EndsWith(place.tensor, ".weight");
      status = maker.FillVector(data, place.elements, norm ? 1.0f : 0.01f);
    }
  }
  if (status.ok()) status = device.Synchronize();
  if (!status.ok()) return status;
  BindWeights(descriptor, layout, *std::move(buffer), weights);
  return weights;
}

}  // namespace sirocco
