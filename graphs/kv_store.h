// The KV cache's memory: one address range a layer group, [block][layer][k, v][head][slot][dim], in
// float8 with the scales of each block's layer behind its v (kernels/kv_scale.h).
// Reserved before plans are recorded, mapped after: no address depends on the number of blocks.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "graphs/step.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace sirocco {

class KvStore {
 public:
  static absl::StatusOr<KvStore> Reserve(Device& device, const ModelDescriptor& descriptor,
                                         const ExecutorOptions& options);
  // Puts memory behind it; once.
  absl::Status Map();

  const std::vector<KvLayer>& layers() const { return layers_; }

  // INVALID_ARGUMENT names what is out of range.
  absl::Status CheckCopies(std::span<const BlockCopy> copies) const;
  // All layers of each block, in the device's order of work.
  absl::Status Copy(Device& device, std::span<const BlockCopy> copies) const;

 private:
  struct Group {
    std::unique_ptr<Reservation> range;
    int64_t block_bytes = 0;
    int32_t blocks = 0;  // of sequences; behind them those of the filling lane (prefill_sizes.h)
  };

  std::vector<Group> groups_;
  std::vector<KvLayer> layers_;
};

}  // namespace sirocco
