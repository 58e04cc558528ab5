#include "engine/model/random_weights.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "engine/model/random_block.h"
#include "engine/model/weight_places.h"

namespace sirocco {
namespace {

class Maker {
 public:
  Maker(Device& device, uint64_t total, const LoadProgress& progress)
      : device_(device), total_(total), progress_(progress) {}

  // `width`: the longest row of a matrix, whose sums set the size of all values.
  absl::Status MakeBlock(DType dtype, int64_t width, uint64_t seed) {
    absl::StatusOr<std::unique_ptr<Buffer>> memory = device_.AllocateHost(RandomBlock::kBytes);
    if (!memory.ok()) return memory.status();
    memory_ = *std::move(memory);
    block_.emplace(memory_->as<std::byte>(), dtype, width, seed);
    return absl::OkStatus();
  }

  absl::Status FillMatrix(std::byte* to, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) {
      const std::span<const std::byte> values = block_->Next(bytes - done);
      absl::Status status = device_.CopyToDevice(to + done, values.data(), values.size());
      if (!status.ok()) return status;
      done += values.size();
      Advance(values.size());
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
  const uint64_t total_;
  const LoadProgress& progress_;
  uint64_t done_ = 0;
  std::unique_ptr<Buffer> memory_;  // the block's
  std::optional<RandomBlock> block_;
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
  Maker maker(device, layout.weight_bytes, progress);
  absl::Status status =
      maker.MakeBlock(dtype, std::max(descriptor.hidden_size, descriptor.intermediate_size), seed);
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
  status = BindWeights(descriptor, layout, device, *std::move(buffer), weights);
  if (!status.ok()) return status;
  return weights;
}

}  // namespace sirocco
