// The KV cache's memory: one address range a layer group, [block][layer][k, v][head][slot][dim], in
// float8 with the scales of each block's layer behind its v (kernels/kv_scale.h).
// Reserved before plans are recorded, mapped after: no address depends on the number of blocks.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
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

 private:
  std::vector<std::unique_ptr<Reservation>> groups_;
  std::vector<KvLayer> layers_;
};

}  // namespace sirocco
