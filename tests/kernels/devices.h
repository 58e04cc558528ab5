// The devices that the operations' tests run on. A backend joins them with an entry in Devices().
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/dtype.h"

namespace sirocco {

struct DeviceCase {
  std::string name;
  absl::StatusOr<std::unique_ptr<Device>> (*create)();
  DType activations;  // the dtype of Rows in the tests
  // Every element is accumulated in one order, whatever the rows and the threads: the bits of
  // fused and eager operations, and of one row alone or among others, are equal.
  bool invariant;
  // Of that alone the last: also where fused and eager operations round differently.
  // (`batch_invariant` of the configuration.)
  bool batch_invariant = invariant;
};

std::vector<DeviceCase> Devices();

// A device and the dtype of weights and KV.
struct TypedCase {
  DeviceCase device;
  DType dtype;
  DType kv = dtype;
};
std::vector<TypedCase> TypedCases();
// Those of batch-invariant devices, with KV in float8 too.
std::vector<TypedCase> BatchInvariantCases();
// Those of a KV cache in float8.
std::vector<TypedCase> Float8Cases();
// Those of weights in blocks.
std::vector<TypedCase> BlockCases();

// For INSTANTIATE_TEST_SUITE_P: "cpu_2_threads", "cpu_2_threads_bfloat16".
std::string CaseName(const DeviceCase& device);
std::string CaseName(const TypedCase& typed);

}  // namespace sirocco
