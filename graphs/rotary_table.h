// Cosines and sines of rotary embeddings, for every position of the longest sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace sirocco {

class RotaryTables {
 public:
  static uint64_t Bytes(const ModelDescriptor& descriptor, int32_t max_length);
  static absl::StatusOr<RotaryTables> Create(Device& device, const ModelDescriptor& descriptor,
                                             int32_t max_length);

  // By LayerDescriptor::rotary.
  const std::vector<RotaryTable>& tables() const { return tables_; }

 private:
  std::unique_ptr<Buffer> memory_;
  std::vector<RotaryTable> tables_;
};

// One position's entry, [2][dim / 2]: cosines, then sines, of sequences of up to `max_length`
// tokens. Computed in float32 throughout, as
// transformers does: the angles of long contexts differ visibly if the product is kept wider.
void RotaryEntry(const RotaryDescriptor& rotary, int32_t max_length, int32_t position,
                 float* cos_sin);

}  // namespace sirocco
