#include "engine/block_budget.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/sequence_blocks.h"

namespace sirocco {
namespace {

struct GroupNeed {
  uint64_t block_bytes = 0;
  uint64_t least = 0;  // blocks of one sequence
  uint64_t most = 0;   // of a full batch

  // What the group has where all groups are to have `even` blocks.
  uint64_t Blocks(uint64_t even) const { return std::max(least, std::min(even, most)); }
};

// Sizes that overflow are as good as the largest: no memory holds them.
uint64_t BytesOf(const std::vector<GroupNeed>& needs, uint64_t even) {
  uint64_t sum = 0;
  for (const GroupNeed& need : needs) {
    uint64_t bytes;
    if (__builtin_mul_overflow(need.Blocks(even), need.block_bytes, &bytes) ||
        __builtin_add_overflow(sum, bytes, &sum)) {
      return std::numeric_limits<uint64_t>::max();
    }
  }
  return sum;
}

std::vector<GroupNeed> NeedsOf(const ModelDescriptor& descriptor, const ExecutorOptions& options) {
  constexpr uint64_t kMost = std::numeric_limits<int32_t>::max();
  std::vector<GroupNeed> needs;
  for (size_t g = 0; g < descriptor.groups.size(); ++g) {
    GroupNeed& need = needs.emplace_back();
    need.block_bytes = static_cast<uint64_t>(
        KvBlockBytes(descriptor, static_cast<int>(g), options.block_size, options.kv_dtype));
    need.least = SequenceBlocks(descriptor.groups[g], options.max_length, options.block_size,
                                options.prefill_chunk_size);
    need.most = std::min(kMost, need.least * options.max_batch_size);
  }
  return needs;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> PlanKvBlocks(const ModelDescriptor& descriptor,
                                                  const ExecutorOptions& options,
                                                  uint64_t memory_bytes) {
  if (descriptor.groups.empty() || options.block_size < 1 || options.max_batch_size < 1 ||
      options.max_length < 1 || options.prefill_chunk_size < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV blocks: ", descriptor.groups.size(), " layer groups, block_size ", options.block_size,
        ", max_batch_size ", options.max_batch_size, ", max_length ", options.max_length,
        " and prefill_chunk_size ", options.prefill_chunk_size, " must all be positive"));
  }
  if (descriptor.layers.empty()) {
    return absl::InvalidArgumentError("KV blocks: the model has no layers");
  }
  const std::vector<GroupNeed> needs = NeedsOf(descriptor, options);
  if (const uint64_t one = BytesOf(needs, 0); one > memory_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "KV cache: one sequence of max_length ", options.max_length, " needs ",
        absl::StrJoin(needs, " and ",
                      [](std::string* out, const GroupNeed& need) {
                        absl::StrAppend(out, need.least, " blocks of ", need.block_bytes, " bytes");
                      }),
        ", ", one, " in all; ", memory_bytes, " bytes are allowed"));
  }
  // The most that fits; bytes never shrink with more blocks.
  uint64_t even = 0, above = uint64_t{std::numeric_limits<int32_t>::max()} + 1;
  while (above - even > 1) {
    const uint64_t middle = even + (above - even) / 2;
    (BytesOf(needs, middle) <= memory_bytes ? even : above) = middle;
  }
  std::vector<int32_t> blocks;
  for (const GroupNeed& need : needs) blocks.push_back(static_cast<int32_t>(need.Blocks(even)));
  return blocks;
}

}  // namespace sirocco
