// What a model will take of its device's memory: planned before any of it is taken, shown as a
// small table, and refused where it cannot fit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/weight_places.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "kernels/device.h"

namespace sirocco {

// What there is.
struct DeviceMemory {
  static DeviceMemory Of(const Device& device);
  std::string backend;
  uint64_t free = 0;
  uint64_t total = 0;
};

// What is asked for.
struct MemoryRequest {
  const ModelDescriptor& descriptor;
  WeightTypes weights = DType::kFloat32;
  ExecutorOptions options;          // all but kv_blocks
  std::optional<int64_t> kv_bytes;  // kv_cache_memory
  double fraction = 1;              // memory_fraction
};

struct MemoryTable {
  struct Row {
    std::string use;  // "weights", "kv, full attention", ...
    uint64_t bytes = 0;
    std::string detail;
  };
  std::vector<Row> rows;
  uint64_t allowed = 0;            // what their sum may be
  std::vector<int32_t> kv_blocks;  // blocks of each layer group

  uint64_t Planned() const;  // the sum
  // A line a row, and the sum.
  std::vector<std::string> Lines() const;
};

// On CUDA the KV cache takes what the rest leaves of `fraction` of all memory, on the CPU a quarter
// of what is free; no more than max_batch_size x max_length needs. RESOURCE_EXHAUSTED, with figures
// and what to change, where that is not enough for one sequence, or where `kv_bytes` do not fit.
absl::StatusOr<MemoryTable> PlanDeviceMemory(const MemoryRequest& request,
                                             const DeviceMemory& memory);

// Of the table: what is set aside for the graphs of the mode, whose size is known only when they
// are captured. 0 where they take no memory of the device.
uint64_t GraphReserve(std::string_view backend, const ExecutorOptions& options);

// "weights 256.6 MiB, workspace ...": what the device counts as taken.
std::string MemoryInUse(const Device& device);

// "12.5 MiB", "1.50 GiB".
std::string BytesForPeople(uint64_t bytes);

}  // namespace sirocco
