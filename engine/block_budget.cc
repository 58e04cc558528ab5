#include "engine/block_budget.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "graphs/executor.h"

namespace sirocco {

absl::StatusOr<std::vector<int32_t>> PlanKvBlocks(const ModelDescriptor& descriptor,
                                                  int32_t block_size, DType kv_dtype,
                                                  int32_t max_batch_size, int32_t max_length,
                                                  uint64_t memory_bytes) {
  const size_t groups = descriptor.groups.size();
  if (groups == 0 || block_size < 1 || max_batch_size < 1 || max_length < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV blocks: ", groups, " layer groups, block_size ", block_size, ", max_batch_size ",
        max_batch_size, " and max_length ", max_length, " must all be positive"));
  }
  uint64_t bytes = 0;  // of one block in every group
  for (size_t group = 0; group < groups; ++group) {
    bytes += static_cast<uint64_t>(
        KvBlockBytes(descriptor, static_cast<int>(group), block_size, kv_dtype));
  }
  if (bytes == 0) return absl::InvalidArgumentError("KV blocks: the model has no layers");
  const uint64_t one = (uint64_t{static_cast<uint32_t>(max_length)} + block_size - 1) / block_size;
  const uint64_t affordable = memory_bytes / bytes;
  if (affordable < one) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "KV cache: one sequence of max_length ", max_length, " needs ", one, " blocks of ", bytes,
        " bytes, ", one * bytes, " in all; ", memory_bytes, " bytes are allowed"));
  }
  const uint64_t wanted = one * max_batch_size;
  const uint64_t most = std::numeric_limits<int32_t>::max();
  const auto blocks = static_cast<int32_t>(std::min({wanted, affordable, most}));
  return std::vector<int32_t>(groups, blocks);
}

}  // namespace sirocco
