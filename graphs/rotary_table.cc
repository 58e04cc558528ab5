#include "graphs/rotary_table.h"

#include <cmath>
#include <cstddef>

#include "graphs/carver.h"

namespace sirocco {
namespace {

// Sets `tables` to their places in `memory` (null: none) and returns the bytes.
uint64_t Place(const ModelDescriptor& descriptor, int32_t max_length, void* memory,
               std::vector<float*>& tables) {
  Carver carver(memory);
  tables.clear();
  for (const RotaryDescriptor& rotary : descriptor.rotaries) {
    tables.push_back(carver.Take<float>(static_cast<int64_t>(rotary.inverse_frequencies.size()) *
                                        2 * max_length));
  }
  return carver.bytes();
}

}  // namespace

void RotaryEntry(const RotaryDescriptor& rotary, int32_t max_length, int32_t position,
                 float* cos_sin) {
  const bool is_long =
      !rotary.long_inverse_frequencies.empty() && max_length > rotary.original_context;
  const std::vector<float>& rates =
      is_long ? rotary.long_inverse_frequencies : rotary.inverse_frequencies;
  const size_t half = rates.size();
  for (size_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * rates[i];
    cos_sin[i] = std::cos(angle) * rotary.scale;
    cos_sin[half + i] = std::sin(angle) * rotary.scale;
  }
}

uint64_t RotaryTables::Bytes(const ModelDescriptor& descriptor, int32_t max_length) {
  std::vector<float*> tables;
  return Place(descriptor, max_length, nullptr, tables);
}

absl::StatusOr<RotaryTables> RotaryTables::Create(Device& device, const ModelDescriptor& descriptor,
                                                  int32_t max_length) {
  RotaryTables result;
  absl::StatusOr<std::unique_ptr<Buffer>> memory =
      device.Allocate(Bytes(descriptor, max_length), MemoryUse::kWorkspace);
  if (!memory.ok()) return memory.status();
  result.memory_ = *std::move(memory);
  std::vector<float*> places;
  Place(descriptor, max_length, result.memory_->data(), places);

  std::vector<float> host;
  for (size_t t = 0; t < places.size(); ++t) {
    const RotaryDescriptor& rotary = descriptor.rotaries[t];
    const size_t dim = 2 * rotary.inverse_frequencies.size();
    host.resize(dim * max_length);
    for (int32_t p = 0; p < max_length; ++p)
      RotaryEntry(rotary, max_length, p, host.data() + dim * p);
    if (absl::Status status =
            device.CopyToDevice(places[t], host.data(), host.size() * sizeof(float));
        !status.ok()) {
      return status;
    }
    if (absl::Status status = device.Synchronize(); !status.ok()) return status;
    result.tables_.push_back({.cos_sin = places[t], .dim = static_cast<int32_t>(dim)});
  }
  return result;
}

}  // namespace sirocco
