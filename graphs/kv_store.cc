#include "graphs/kv_store.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "graphs/layer_params.h"
#include "graphs/prefill_sizes.h"
#include "graphs/step_inputs.h"
#include "kernels/kv_scale.h"

namespace sirocco {

int64_t KvSlotBytes(const ModelDescriptor& descriptor, DType kv_dtype) {
  const int64_t scale = kv_dtype == DType::kFloat8 ? 1 : 0;
  return int64_t{2} * descriptor.kv_heads *
         (descriptor.head_dim * static_cast<int64_t>(BytesOf(kv_dtype)) + scale);
}

int64_t KvBlockBytes(const ModelDescriptor& descriptor, int group, int32_t block_size,
                     DType kv_dtype) {
  int64_t layers = 0;
  for (const LayerDescriptor& layer : descriptor.layers) layers += layer.group == group;
  return layers * static_cast<int64_t>(BytesOf(kv_dtype)) *
         KvLayerElements(kv_dtype, descriptor.kv_heads, block_size, descriptor.head_dim);
}

absl::StatusOr<KvStore> KvStore::Reserve(Device& device, const ModelDescriptor& descriptor,
                                         const ExecutorOptions& options) {
  KvStore store;
  std::vector<void*> data;
  for (size_t g = 0; g < descriptor.groups.size(); ++g) {
    const int64_t block_bytes =
        KvBlockBytes(descriptor, static_cast<int>(g), options.block_size, options.kv_dtype);
    absl::StatusOr<std::unique_ptr<Reservation>> range = device.Reserve(
        static_cast<size_t>(block_bytes) * (int64_t{options.kv_blocks[g]} + FillingBlocks(options)),
        MemoryUse::kKv);
    if (!range.ok()) return range.status();
    data.push_back((*range)->data());
    store.groups_.push_back({*std::move(range), block_bytes, options.kv_blocks[g]});
  }
  store.layers_ = MakeKvLayers(descriptor, options.block_size, options.kv_dtype, data);
  return store;
}

absl::Status KvStore::Map() {
  for (const Group& group : groups_) {
    if (absl::Status status = group.range->Map(group.range->bytes()); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status KvStore::CheckCopies(std::span<const BlockCopy> copies) const {
  for (const BlockCopy& copy : copies) {
    const auto groups = static_cast<int32_t>(groups_.size());
    if (copy.group < 0 || copy.group >= groups) {
      return StepRangeError("a block copy's group", copy.group, 0, groups - 1);
    }
    const int32_t last = groups_[copy.group].blocks - 1;
    if (copy.from < 0 || copy.from > last) {
      return StepRangeError("a block to copy from", copy.from, 0, last);
    }
    if (copy.to < 0 || copy.to > last) {
      return StepRangeError("a block to copy to", copy.to, 0, last);
    }
    if (copy.to == copy.from) {
      return absl::InvalidArgumentError(
          absl::StrCat("step: block ", copy.from, " is to be copied to itself"));
    }
  }
  return absl::OkStatus();
}

absl::Status KvStore::Copy(Device& device, std::span<const BlockCopy> copies) const {
  for (const BlockCopy& copy : copies) {
    const Group& group = groups_[copy.group];
    std::byte* const blocks = group.range->as<std::byte>();
    absl::Status status =
        device.CopyOnDevice(blocks + copy.to * group.block_bytes,
                            blocks + copy.from * group.block_bytes, group.block_bytes);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace sirocco
